//! The endpoint of EC2's API in a region, by the rules of AWS's own tools.

use url::Url;

use crate::types::Region;

/// A group of regions with DNS suffixes of its own.
#[derive(Debug, PartialEq, Eq)]
struct Partition {
    /// The begin of the names of its regions.
    prefix: &'static str,
    suffix: &'static str,
    /// The suffix of endpoints with IPv4 and IPv6 addresses.
    dual_stack: &'static str,
}

/// The partitions from the most special prefix to the most general (`partitions.json` of botocore).
const PARTITIONS: [Partition; 8] = [
    Partition {
        prefix: "cn-",
        suffix: "amazonaws.com.cn",
        dual_stack: "api.amazonwebservices.com.cn",
    },
    Partition {
        prefix: "us-gov-",
        suffix: "amazonaws.com",
        dual_stack: "api.aws",
    },
    Partition {
        prefix: "us-iso-",
        suffix: "c2s.ic.gov",
        dual_stack: "api.aws.ic.gov",
    },
    Partition {
        prefix: "us-isob-",
        suffix: "sc2s.sgov.gov",
        dual_stack: "api.aws.scloud",
    },
    Partition {
        prefix: "eu-isoe-",
        suffix: "cloud.adc-e.uk",
        dual_stack: "api.cloud-aws.adc-e.uk",
    },
    Partition {
        prefix: "us-isof-",
        suffix: "csp.hci.ic.gov",
        dual_stack: "api.aws.hci.ic.gov",
    },
    Partition {
        prefix: "eusc-",
        suffix: "amazonaws.eu",
        dual_stack: "api.amazonwebservices.eu",
    },
    Partition {
        prefix: "",
        suffix: "amazonaws.com",
        dual_stack: "api.aws",
    },
];

/// The wish for an endpoint, from the settings and from AWS's variables.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EndpointChoice {
    /// A URL in place of AWS's endpoint.
    pub url: Option<String>,
    /// The endpoint with IPv4 and IPv6 addresses.
    pub dual_stack: bool,
    /// The endpoint with validated cryptography (FIPS 140).
    pub fips: bool,
}

impl EndpointChoice {
    /// The choice of AWS's variables; `lookup` returns the value of a variable.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> EndpointChoice {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let is_true =
            |name: &str| set(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let ignored = is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        let url = set("AWS_ENDPOINT_URL_EC2").or_else(|| set("AWS_ENDPOINT_URL"));
        EndpointChoice {
            url: url.filter(|_| !ignored),
            dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT"),
            fips: is_true("AWS_USE_FIPS_ENDPOINT"),
        }
    }
}

/// The region of AWS's variables, for settings without a region.
pub fn region_of_variables(lookup: impl Fn(&str) -> Option<String>) -> Option<Region> {
    let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
    set("AWS_REGION")
        .or_else(|| set("AWS_DEFAULT_REGION"))
        .map(|name| Region::from(name.as_str()))
}

/// The reason for an endpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFault {
    #[error("{0:?} is no region: write its code, for example eu-central-1")]
    Region(String),
    #[error("the endpoint of EC2 is no usable URL ({0}): write it as https://host[:port]")]
    Url(String),
    #[error(
        "an endpoint of your own has no {0} form: unset {1}, or remove the endpoint from the configuration"
    )]
    Switch(&'static str, &'static str),
}

/// The URL of EC2's API.
///
/// # Errors
/// [`EndpointFault`] for a name that is no region, for text that is no URL, and for a switch that
/// cannot apply to an own URL.
pub(super) fn resolve(region: &Region, choice: &EndpointChoice) -> Result<Url, EndpointFault> {
    // The region is a part of the host name and of the signature's scope.
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = region.as_str();
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(EndpointFault::Region(name.to_owned()));
    }
    if let Some(text) = &choice.url {
        return own(text, choice);
    }
    let host = host(name, choice.dual_stack, choice.fips);
    Url::parse(&format!("https://{host}/")).map_err(|error| EndpointFault::Url(error.to_string()))
}

fn own(text: &str, choice: &EndpointChoice) -> Result<Url, EndpointFault> {
    if choice.fips {
        return Err(EndpointFault::Switch("FIPS", "AWS_USE_FIPS_ENDPOINT"));
    }
    if choice.dual_stack {
        return Err(EndpointFault::Switch(
            "dual-stack",
            "AWS_USE_DUALSTACK_ENDPOINT",
        ));
    }
    let url = Url::parse(text).map_err(|error| EndpointFault::Url(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(EndpointFault::Url(
            "the scheme is not http or https".to_owned(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(EndpointFault::Url("a query is not allowed".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(EndpointFault::Url(
            "a user or a password is not allowed: requests are signed".to_owned(),
        ));
    }
    Ok(url)
}

fn host(region: &str, dual_stack: bool, fips: bool) -> String {
    let general = &PARTITIONS[PARTITIONS.len() - 1];
    let partition = PARTITIONS
        .iter()
        .find(|partition| region.starts_with(partition.prefix))
        .unwrap_or(general);
    let suffix = if dual_stack {
        partition.dual_stack
    } else {
        partition.suffix
    };
    // All IPv4 endpoints of the government's regions are validated, under the plain name.
    let plain = !fips || partition.prefix == "us-gov-" && !dual_stack;
    let service = if plain { "ec2" } else { "ec2-fips" };
    format!("{service}.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(region: &str, dual_stack: bool, fips: bool) -> String {
        let choice = EndpointChoice {
            url: None,
            dual_stack,
            fips,
        };
        resolve(&Region::from(region), &choice).unwrap().to_string()
    }

    #[test]
    fn each_partition_has_its_own_suffixes() {
        for (region, plain, dual_stack) in [
            ("eu-central-1", "amazonaws.com", "api.aws"),
            (
                "cn-north-1",
                "amazonaws.com.cn",
                "api.amazonwebservices.com.cn",
            ),
            ("us-gov-west-1", "amazonaws.com", "api.aws"),
            ("us-iso-east-1", "c2s.ic.gov", "api.aws.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov", "api.aws.scloud"),
            ("eu-isoe-west-1", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
            ("us-isof-south-1", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
            ("eusc-de-east-1", "amazonaws.eu", "api.amazonwebservices.eu"),
        ] {
            assert_eq!(
                at(region, false, false),
                format!("https://ec2.{region}.{plain}/")
            );
            assert_eq!(
                at(region, true, false),
                format!("https://ec2.{region}.{dual_stack}/")
            );
        }
    }

    #[test]
    fn fips_endpoints_have_a_name_of_their_own_except_in_government_regions() {
        assert_eq!(
            at("us-east-2", false, true),
            "https://ec2-fips.us-east-2.amazonaws.com/"
        );
        assert_eq!(
            at("us-east-2", true, true),
            "https://ec2-fips.us-east-2.api.aws/"
        );
        assert_eq!(
            at("us-gov-east-1", false, true),
            "https://ec2.us-gov-east-1.amazonaws.com/"
        );
    }

    #[test]
    fn variables_choose_the_endpoint_and_the_special_one_wins() {
        let choice = |set: &[(&str, &str)]| {
            EndpointChoice::from_variables(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let both = [
            ("AWS_ENDPOINT_URL", "http://a/"),
            ("AWS_ENDPOINT_URL_EC2", "http://b/"),
        ];
        assert_eq!(choice(&both).url.as_deref(), Some("http://b/"));
        assert_eq!(choice(&both[..1]).url.as_deref(), Some("http://a/"));
        let ignored = [both[0], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(choice(&ignored).url, None);
        let empty = choice(&[("AWS_ENDPOINT_URL", ""), ("AWS_USE_FIPS_ENDPOINT", "")]);
        assert_eq!((empty.url, empty.fips), (None, false));
        let switches = choice(&[
            ("AWS_USE_FIPS_ENDPOINT", "True"),
            ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ]);
        assert!(switches.fips && switches.dual_stack);
    }

    #[test]
    fn unusable_endpoints_are_refused_without_their_password() {
        let own = |url: &str| {
            let choice = EndpointChoice {
                url: Some(url.to_owned()),
                ..EndpointChoice::default()
            };
            resolve(&Region::from("eu-west-1"), &choice).map(|url| url.to_string())
        };
        assert_eq!(own("http://[::1]:5000").unwrap(), "http://[::1]:5000/");
        for bad in [
            "localhost:5000",
            "ftp://host",
            "https://user:geheim@host/",
            "http://host/?a",
        ] {
            let text = own(bad).unwrap_err().to_string();
            assert!(text.contains("https://host"), "{bad}: {text}");
            assert!(!text.contains("geheim"), "{text}");
        }
        for bad in ["", "eu-west-1/", "x.evil.example", "EU"] {
            let choice = EndpointChoice::default();
            assert!(resolve(&Region::from(bad), &choice).is_err(), "{bad}");
        }
        let fips = EndpointChoice {
            url: Some("http://host".to_owned()),
            fips: true,
            dual_stack: false,
        };
        let text = resolve(&Region::from("eu-west-1"), &fips).unwrap_err();
        assert!(text.to_string().contains("AWS_USE_FIPS_ENDPOINT"));
    }
}
