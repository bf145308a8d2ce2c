//! Checks of `[vpc_plane]`.

use super::Mistakes;
use crate::config::{Config, PlaneMode};

impl Mistakes {
    pub(super) fn vpc_plane(&mut self, config: &Config) {
        let plane = &config.vpc_plane;
        if plane.lists.len() > 2 {
            self.add(
                &["vpc_plane.lists"],
                format!(
                    "{} lists: write at most one of each family",
                    plane.lists.len()
                ),
            );
        }
        if plane.mode == PlaneMode::Routes && !plane.lists.is_empty() {
            self.add(
                &["vpc_plane.lists", "vpc_plane.mode"],
                "mode = \"routes\" has no lists: remove vpc_plane.lists or write mode = \"prefix-list\"",
            );
        }
        if !config.vpc_role {
            return;
        }
        if plane.tables.is_empty() {
            self.add(
                &["vpc_plane.tables"],
                "role = \"vpc\" needs at least one route table: write tables = \
                 [\"tag:trailblazer=bypass\"] or the ids of the tables",
            );
        }
        let selected = |family| config.select.families.contains(&family);
        if plane.families().next().is_none() {
            self.add(
                &["vpc_plane.target.ipv4", "vpc_plane.target.ipv6"],
                "role = \"vpc\" needs a target: write target.ipv4 = \"igw-…\", target.ipv6 = \
                 \"eigw-…\", or both",
            );
        } else if !plane.families().any(selected) {
            self.add(
                &["vpc_plane.target.ipv4", "vpc_plane.target.ipv6", "select.families"],
                "select.families lacks the family of the target: add the family, or write the target \
                 of a selected family",
            );
        }
    }
}
