//! The keys of a profile in AWS's configuration files, for messages about credentials. The values are
//! read by the crate that signs; here the names suffice, so that no secret is held twice.

use std::collections::BTreeSet;

/// The names of the keys of one profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ProfileKeys {
    names: BTreeSet<String>,
}

impl ProfileKeys {
    /// Reads the keys of a profile from `~/.aws/credentials`, where a section is named as the profile,
    /// and from `~/.aws/config`, where all profiles but the default have the word `profile` in front.
    pub(super) fn read(profile: &str, credentials: &str, config: &str) -> ProfileKeys {
        let long = format!("profile {profile}");
        let section = if profile == "default" { profile } else { &long };
        let mut names = BTreeSet::new();
        names.extend(keys_of(credentials, profile));
        names.extend(keys_of(config, section));
        ProfileKeys { names }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// A setting of the profile that the client cannot use, with a way out.
    pub(super) fn unsupported(&self) -> Option<&'static str> {
        let way_out = if self.has("role_arn") && self.has("web_identity_token_file") {
            "web_identity_token_file in a profile is not supported: set AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN"
        } else if self.has("role_arn") || self.has("source_profile") {
            "role_arn and source_profile are not supported: set credential_process to a command that assumes the role, or export its credentials (aws configure export-credentials --format env)"
        } else if self.has("sso_session") && !self.has("sso_start_url") {
            "sso_session is not supported: write sso_start_url and sso_region into the profile, or set credential_process"
        } else {
            return None;
        };
        Some(way_out)
    }
}

fn keys_of<'t>(text: &'t str, section: &'t str) -> impl Iterator<Item = String> + 't {
    let mut is_inside = false;
    text.lines().filter_map(move |line| {
        // An indented line belongs to the value of the line before.
        if line.starts_with([' ', '\t', '#', ';']) {
            return None;
        }
        let line = line.trim();
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.split(']').next().unwrap_or_default();
            let words: Vec<&str> = name.split_whitespace().collect();
            is_inside = words.join(" ") == section;
            return None;
        }
        let (name, value) = line.split_once('=')?;
        (is_inside && !value.trim().is_empty()).then(|| name.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[default]\nregion = eu-west-1\n\n[profile  a]\n# c = 1\nrole_arn = arn:aws:iam::1:role/x\n\
                          source_profile=default\ns3 =\n  max = 2\n[profile b]\nsso_session = s\n\
                          [profile c]\nrole_arn = r\nweb_identity_token_file = /t\n[b]\nx = 1\n";

    #[test]
    fn keys_belong_to_their_section_in_both_files() {
        let credentials = "[a]\naws_access_key_id = AKIA\naws_secret_access_key = geheim\n";
        let keys = ProfileKeys::read("a", credentials, CONFIG);
        let names: Vec<&str> = keys.names.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "aws_access_key_id",
                "aws_secret_access_key",
                "role_arn",
                "source_profile"
            ]
        );
        assert!(!format!("{keys:?}").contains("geheim"));
        assert!(ProfileKeys::read("default", "", CONFIG).has("region"));
        assert!(!ProfileKeys::read("b", "", CONFIG).has("x"));
    }

    #[test]
    fn unsupported_settings_are_named_with_a_way_out() {
        let said = |profile: &str| ProfileKeys::read(profile, "", CONFIG).unsupported();
        assert!(said("a").unwrap().contains("credential_process"));
        assert!(said("b").unwrap().contains("sso_start_url"));
        assert!(said("c").unwrap().contains("AWS_WEB_IDENTITY_TOKEN_FILE"));
        assert_eq!(said("default"), None);
    }
}
