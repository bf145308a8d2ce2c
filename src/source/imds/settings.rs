//! The endpoints of the metadata service, and the time for its answers.

use std::path::Path;
use std::time::Duration;

use reqwest::Url;

use super::error::ImdsError;
use super::machine::is_ec2;
use crate::config::MetadataUse;

/// "Retrieve instance metadata", Amazon EC2 User Guide.
pub const IPV4_ENDPOINT: &str = "http://169.254.169.254";
/// From the same guide; needs a Nitro instance with IPv6 switched on in its metadata options.
pub const IPV6_ENDPOINT: &str = "http://[fd00:ec2::254]";
/// For all requests together, fall-back to IPv6 included: outside of EC2, a pass must not wait long
/// for an absent service.
pub const BUDGET: Duration = Duration::from_secs(1);
/// The endpoints and the time for all requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsSettings {
    /// Endpoints in the order in which they are tried.
    pub endpoints: Vec<Url>,
    pub budget: Duration,
}

const ENDPOINT_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const MODE_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";

const DISABLED_VARIABLE: &str = "AWS_EC2_METADATA_DISABLED";
/// The kernel's description of the machine.
const SYS: &str = "/sys";

impl ImdsSettings {
    /// From AWS's own environment variables, if the service may be asked: `auto` permits it on an
    /// EC2 instance, and where a variable names the endpoint.
    ///
    /// # Errors
    /// [`ImdsError::NotEc2`] and [`ImdsError::Off`] without permission; else as
    /// [`ImdsSettings::new`].
    pub fn permitted(metadata: MetadataUse) -> Result<Self, ImdsError> {
        let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let settings = Self::new(
            read(ENDPOINT_VARIABLE).as_deref(),
            read(MODE_VARIABLE).as_deref(),
        )?;
        let is_set = |name| read(name).is_some_and(|value| !value.trim().is_empty());
        let disabled =
            read(DISABLED_VARIABLE).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        match metadata {
            MetadataUse::On => Ok(settings),
            MetadataUse::Off => Err(ImdsError::Off("[vpc] metadata = \"off\"")),
            MetadataUse::Auto if disabled => Err(ImdsError::Off("AWS_EC2_METADATA_DISABLED=true")),
            MetadataUse::Auto if is_set(ENDPOINT_VARIABLE) || is_ec2(Path::new(SYS)) => {
                Ok(settings)
            }
            MetadataUse::Auto => Err(ImdsError::NotEc2),
        }
    }

    /// From the values of `AWS_EC2_METADATA_SERVICE_ENDPOINT` and `…_MODE`, with AWS's meaning
    /// ("IMDS credential provider", AWS SDKs and Tools Reference Guide): an endpoint wins over a
    /// mode, a mode is `IPv4` or `IPv6`, an empty value counts as unset. With neither, IPv4 is
    /// tried first, then IPv6.
    ///
    /// # Errors
    /// [`ImdsError::Setting`] for an endpoint that is no `http:` URL, or another mode.
    pub fn new(endpoint: Option<&str>, mode: Option<&str>) -> Result<Self, ImdsError> {
        let chosen = |value: &str| value.trim().to_owned();
        let endpoint = endpoint.map(chosen).filter(|value| !value.is_empty());
        let mode = mode.map(chosen).filter(|value| !value.is_empty());
        let names = match (&endpoint, mode.as_deref()) {
            (Some(endpoint), _) => vec![endpoint.as_str()],
            (None, None) => vec![IPV4_ENDPOINT, IPV6_ENDPOINT],
            (None, Some(mode)) if mode.eq_ignore_ascii_case("ipv4") => vec![IPV4_ENDPOINT],
            (None, Some(mode)) if mode.eq_ignore_ascii_case("ipv6") => vec![IPV6_ENDPOINT],
            (None, Some(mode)) => {
                return Err(ImdsError::Setting {
                    variable: MODE_VARIABLE,
                    value: mode.to_owned(),
                    why: "is neither IPv4 nor IPv6",
                });
            }
        };
        let endpoints = names
            .into_iter()
            .map(|name| match Url::parse(name) {
                // Paths are appended, so the endpoint must end with a slash.
                Ok(mut url) if url.scheme() == "http" && url.has_host() => {
                    let path = format!("{}/", url.path().trim_end_matches('/'));
                    url.set_path(&path);
                    Ok(url)
                }
                _ => Err(ImdsError::Setting {
                    variable: ENDPOINT_VARIABLE,
                    value: name.to_owned(),
                    why: "is no http:// URL: write it like http://169.254.169.254",
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(ImdsSettings {
            endpoints,
            budget: BUDGET,
        })
    }
}
