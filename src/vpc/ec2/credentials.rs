//! AWS credentials and signatures. No other module names the crate that has both.
//!
//! The places are those of AWS's own tools. A place that is configured and fails ends the search: the
//! next place could belong to somebody else, for example the role of the node below a container.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider as WebIdentity, Credential,
    ECSCredentialProvider as Container, EnvCredentialProvider as Variables,
    IMDSv2CredentialProvider as Metadata, ProcessCredentialProvider as Process,
    ProfileCredentialProvider as Keys, RequestSigner, SSOCredentialProvider as Sso,
};
use reqsign_core::time::Timestamp;
use reqsign_core::{
    CommandExecute, CommandOutput, Context, Error, FileRead, HttpSend, ProvideCredentialDyn,
    SignRequest as _, SigningCredential as _,
};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::profile::ProfileKeys;
use crate::printable::shortened;
use crate::source::web::Web;
use crate::types::Region;

/// The name of the service in a signature's scope.
const SERVICE: &str = "ec2";

/// The limit of one request for credentials. The metadata service answers in milliseconds; STS and
/// Identity Center need a second.
const LIMIT: Duration = Duration::from_secs(10);

/// The limit of `credential_process`, which may ask a person or a vault.
const LIMIT_OF_PROCESS: Duration = Duration::from_secs(60);

/// The largest file with a profile or a token.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The longest reason of one place in a message.
const LONGEST_REASON: usize = 300;

/// The name of the last place.
const METADATA: &str = "the metadata service";

/// The words of the crate before the subject and the reason of a parser.
const PARSED: &str = "failed to parse";

/// Credentials from AWS's chain, cached until shortly before they expire.
pub(super) struct Credentials {
    region: Region,
    context: Context,
    cached: Mutex<Option<Credential>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The crate's own output shows the begin and the end of each secret.
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// A place of the chain.
struct Place {
    name: String,
    /// The reason for a place that is not configured.
    absent: Option<String>,
    provider: Box<dyn ProvideCredentialDyn<Credential = Credential>>,
}

impl Credentials {
    /// The chain. `variables` is the environment.
    pub(super) fn new(region: &Region, web: Web, variables: impl reqsign_core::Env) -> Credentials {
        let context = Context::new()
            .with_file_read(Files)
            .with_http_send(Requests(Arc::new(web)))
            .with_env(variables)
            .with_command_execute(Commands);
        Credentials {
            region: region.clone(),
            context,
            cached: Mutex::new(None),
        }
    }

    /// Signs a request whose header `x-amz-content-sha256` is set: the crate otherwise signs no body.
    /// Returns the credentials of the signature.
    ///
    /// # Errors
    /// The places without credentials, and the reason of each.
    pub(super) async fn sign(&self, parts: &mut Parts) -> Result<Credential, String> {
        let credential = self.get().await?;
        RequestSigner::new(SERVICE, self.region.as_str())
            .sign_request(&self.context, parts, Some(&credential), None)
            .await
            .map_err(|error| format!("the request cannot be signed: {}", reason(&error)))?;
        Ok(credential)
    }

    /// Forgets cached credentials. Returns true if they were temporary, so that new ones may follow.
    pub(super) async fn forget(&self) -> bool {
        let old = self.cached.lock().await.take();
        old.is_some_and(|old| old.session_token.is_some())
    }

    async fn get(&self) -> Result<Credential, String> {
        // One search at a time: all calls wait for the same answer.
        let mut cached = self.cached.lock().await;
        if let Some(credential) = cached.as_ref().filter(|cached| cached.is_valid()) {
            return Ok(credential.clone());
        }
        match self.find().await {
            Ok(found) => {
                *cached = Some(found.clone());
                Ok(found)
            }
            // Renewal begins two minutes before the end, and may fail until then.
            Err(reason) => match cached.as_ref() {
                Some(old) if old.is_valid_at(Timestamp::now() + LIMIT) => Ok(old.clone()),
                _ => Err(reason),
            },
        }
    }

    async fn find(&self) -> Result<Credential, String> {
        let mut looked = Vec::new();
        let (profile, keys) = self.profile().await;
        for place in self.places(&profile, &keys) {
            if let Some(absent) = place.absent {
                looked.push(format!("{} ({absent})", place.name));
                continue;
            }
            match place.provider.provide_credential_dyn(&self.context).await {
                Ok(Some(found)) if found.is_valid_at(Timestamp::now()) => return Ok(found),
                Ok(Some(_)) => {
                    return Err(format!("the credentials of {} have expired", place.name));
                }
                Ok(None) => looked.push(format!("{} (nothing found)", place.name)),
                Err(error) if place.name == METADATA => {
                    // The last place, and asked without any configuration.
                    looked.push(format!("{} ({})", place.name, reason(&error)));
                }
                Err(error) => {
                    return Err(format!(
                        "no credentials: {} failed: {}",
                        place.name,
                        reason(&error)
                    ));
                }
            }
        }
        Err(format!(
            "no credentials: none in {}: give the host or task a role, or set AWS_PROFILE",
            looked.join("; ")
        ))
    }

    /// The name of the profile and the names of its keys.
    async fn profile(&self) -> (String, ProfileKeys) {
        let name = self.variable("AWS_PROFILE");
        let name = name.unwrap_or_else(|| "default".to_owned());
        let credentials = self.file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials");
        let credentials = credentials.await;
        let config = self.file("AWS_CONFIG_FILE", "~/.aws/config").await;
        let keys = ProfileKeys::read(&name, &credentials, &config);
        (name, keys)
    }

    async fn file(&self, variable: &str, default: &str) -> String {
        let path = self.variable(variable);
        let path = path.unwrap_or_else(|| default.to_owned());
        let Some(path) = self.context.expand_home_dir(&path) else {
            return String::new();
        };
        let read = self.context.file_read_as_string(&path).await;
        read.unwrap_or_default()
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = self.context.env_var(name);
        value.filter(|value| !value.is_empty())
    }

    /// The reason for a place that needs variables, if one of them is not set.
    fn unset(&self, names: &[&str]) -> Option<String> {
        let unset = names.iter().find(|name| self.variable(name).is_none());
        unset.map(|name| format!("{name} is not set"))
    }

    fn places(&self, profile: &str, keys: &ProfileKeys) -> Vec<Place> {
        let without = |key: &str| (!keys.has(key)).then(|| format!("the profile has no {key}"));
        let no_keys = without("aws_access_key_id").or_else(|| without("aws_secret_access_key"));
        let no_keys = no_keys.map(|absent| match keys.unsupported() {
            Some(unsupported) => unsupported.to_owned(),
            None => absent,
        });
        let relative = self.unset(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]);
        let container = relative.and(self.unset(&["AWS_CONTAINER_CREDENTIALS_FULL_URI"]));
        let disabled = self.variable("AWS_EC2_METADATA_DISABLED");
        let disabled = disabled.filter(|value| value.eq_ignore_ascii_case("true"));
        let web_identity = WebIdentity::new()
            .with_region(self.region.to_string())
            .with_regional_sts_endpoint();
        let place = |name: &str, absent, provider| Place {
            name: name.to_owned(),
            absent,
            provider,
        };
        vec![
            place(
                "the environment",
                self.unset(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
                Box::new(Variables::new()),
            ),
            place(
                &format!("the profile {profile:?}"),
                no_keys,
                Box::new(Keys::new().with_profile(profile)),
            ),
            place(
                "Identity Center (SSO)",
                without("sso_start_url"),
                Box::new(Sso::new().with_profile(profile)),
            ),
            place(
                "the web identity",
                self.unset(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"]),
                Box::new(web_identity),
            ),
            place(
                "credential_process",
                without("credential_process"),
                Box::new(Process::new().with_profile(profile)),
            ),
            place("the container", container, Box::new(Container::new())),
            place(
                METADATA,
                disabled.map(|_| "AWS_EC2_METADATA_DISABLED is set".to_owned()),
                Box::new(Metadata::new()),
            ),
        ]
    }
}

/// The reason of a failure, with the transport's reason below. The reasons of parsers are left out:
/// a parser may quote the text with the secret.
fn reason(error: &Error) -> String {
    let below = error
        .source()
        .and_then(|cause| cause.downcast_ref::<Error>());
    let text = match below {
        Some(below) => format!("{error}: {below}"),
        None => error.to_string(),
    };
    let text = match text.split_once(PARSED) {
        Some((before, after)) => {
            let subject = after.split(':').next().unwrap_or_default();
            format!("{before}{PARSED}{subject}")
        }
        None => text,
    };
    shortened(text.trim(), LONGEST_REASON)
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let size = tokio::fs::metadata(path).await?.len();
        if size > LARGEST_FILE {
            return Err(Error::config_invalid(format!(
                "{path} is larger than {LARGEST_FILE} bytes"
            )));
        }
        Ok(tokio::fs::read(path).await?)
    }
}

#[derive(Debug)]
struct Requests(Arc<Web>);

impl HttpSend for Requests {
    async fn http_send(
        &self,
        request: hyper::Request<Bytes>,
    ) -> reqsign_core::Result<hyper::Response<Bytes>> {
        let answer = match timeout(LIMIT, self.0.send(request)).await {
            Ok(answer) => answer.map_err(|error| Error::unexpected(error.to_string()))?,
            Err(_elapsed) => {
                return Err(Error::unexpected(format!("no answer within {LIMIT:?}")));
            }
        };
        let mut response = hyper::Response::new(answer.body);
        *response.status_mut() = hyper::StatusCode::from_u16(answer.status)
            .map_err(|error| Error::unexpected(error.to_string()))?;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

#[derive(Debug)]
struct Commands;

impl CommandExecute for Commands {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        args: &'a [&'a str],
    ) -> reqsign_core::Result<CommandOutput> {
        let run = Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT_OF_PROCESS, run).await.map_err(|_elapsed| {
            Error::unexpected(format!("{program} did not end within {LIMIT_OF_PROCESS:?}"))
        })?;
        let output = output
            .map_err(|error| Error::unexpected(format!("{program} cannot be run: {error}")))?;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

#[cfg(test)]
mod tests;
