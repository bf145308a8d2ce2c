//! The role of a process.

use serde::{Deserialize, Serialize};

use super::Config;

/// The role of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A server behind a NAT instance.
    Host,
    Nat,
}

words!(Role { Host => "host", Nat => "nat" });

/// A role of this machine, or the role without a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnyRole {
    /// A server behind a NAT instance.
    Host,
    Nat,
    /// The process changes a VPC's route tables and no kernel.
    Vpc,
}

words!(AnyRole { Host => "host", Nat => "nat", Vpc => "vpc" });

impl From<Role> for AnyRole {
    fn from(role: Role) -> AnyRole {
        match role {
            Role::Host => AnyRole::Host,
            Role::Nat => AnyRole::Nat,
        }
    }
}

impl Config {
    /// Sets the role.
    pub(super) fn set_role(&mut self, role: AnyRole) {
        self.vpc_role = role == AnyRole::Vpc;
        self.role = match role {
            AnyRole::Host => Some(Role::Host),
            AnyRole::Nat => Some(Role::Nat),
            AnyRole::Vpc => None,
        };
    }
}
