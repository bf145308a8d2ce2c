//! The region and the client of a process, and the settings with every `auto` resolved.

use super::ec2::{Ec2, Ec2Settings, EndpointChoice, forbid_core_dumps, region_of_variables};
use super::error::VpcError;
use crate::config::{AutoOr, Config};
use crate::source::imds::{self, ImdsSettings, Wanted};
use crate::types::Region;

/// The longest region name that EC2's endpoints have, with room: a variable may hold anything.
const LONGEST_REGION: usize = 40;

/// A client, and the settings under which it works.
#[derive(Debug)]
pub struct Session {
    pub ec2: Ec2,
    /// The settings, with the region in place of `auto`.
    pub config: Config,
    pub region: Region,
}

impl Session {
    /// Finds the region and makes the client. Asks the metadata service only if nothing else names
    /// the region; sends nothing to EC2.
    ///
    /// # Errors
    /// The region is unknown, or no endpoint can be used.
    pub async fn open(config: &Config) -> Result<Session, VpcError> {
        // First: AWS's variables may hold a secret key before a client exists.
        forbid_core_dumps();
        let region = region(config).await?;
        let plane = &config.vpc_plane;
        let mut settings = Ec2Settings::new(region.clone());
        settings.endpoint = EndpointChoice {
            url: plane.endpoint.clone(),
            ..EndpointChoice::default()
        };
        settings.total = plane.deadline;
        settings.changes_per_second = f64::from(plane.writes_per_second);
        let ec2 = Ec2::connect(&settings)?;
        Ok(Session {
            ec2,
            config: resolved(config, &region),
            region,
        })
    }
}

/// The settings with the region in place of `auto`. The VPC's networks come from its tables.
pub fn resolved(config: &Config, region: &Region) -> Config {
    let mut config = config.clone();
    for selected in &mut config.select.regions {
        if *selected == AutoOr::Auto {
            *selected = AutoOr::Set(region.clone());
        }
    }
    config.vpc_plane.region = AutoOr::Set(region.clone());
    config.vpc_cidrs.retain(|cidr| *cidr != AutoOr::Auto);
    config
}

/// The region of the tables: of the settings, of AWS's variables, or of the metadata service.
///
/// # Errors
/// The region is unknown.
pub async fn region(config: &Config) -> Result<Region, VpcError> {
    if let AutoOr::Set(region) = &config.vpc_plane.region {
        return Ok(region.clone());
    }
    let variable = region_of_variables(|name| std::env::var(name).ok());
    if let Some(region) = variable {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if region.0.len() <= LONGEST_REGION && region.0.chars().all(plain) {
            return Ok(region);
        }
        return Err(VpcError::NoRegion(format!(
            "AWS_REGION holds {:?}, which is no name of a region",
            region.0
        )));
    }
    let wanted = Wanted {
        region: true,
        ..Wanted::default()
    };
    let answer = match ImdsSettings::permitted(config.metadata) {
        Ok(settings) => imds::ask(wanted, &settings).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(facts) => facts
            .region
            .ok_or_else(|| VpcError::NoRegion("the metadata service names none".to_owned())),
        Err(error) => Err(VpcError::NoRegion(format!("metadata service: {error}"))),
    }
}
