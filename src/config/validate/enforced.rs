//! `[egress] enforce` and `pin`.

use super::Mistakes;
use crate::config::{AutoOr, Config};
use crate::types::{PIN_TABLES, TableId};

impl Mistakes {
    pub(super) fn enforced(&mut self, config: &Config) {
        let asked = config.egress.enforce == AutoOr::Set(true);
        if asked && config.kernel.gateway_mask.count_ones() < 2 {
            self.add(
                &["kernel.marks.gateway", "egress.enforce"],
                "egress.enforce needs two bits of kernel.marks.gateway: write a mask such as \"0x000e\"",
            );
        }
    }

    pub(super) fn pin_tables(&mut self, config: &Config) {
        let first = config.kernel.pin_tables.0;
        let last = first + PIN_TABLES - 1;
        let taken = [
            (config.bypass.table, "the table of the bypass path"),
            (config.egress.table, "the table of the egress path"),
            (TableId::DEFAULT, "the kernel's own table \"default\""),
            (TableId::MAIN, "the kernel's own table \"main\""),
            (TableId::LOCAL, "the kernel's own table \"local\""),
        ];
        for (table, owner) in taken {
            if (first..=last).contains(&table.0) {
                self.add(
                    &["kernel.pin_tables"],
                    format!("the tables {first} to {last} contain {table}, {owner}: write another number, such as 1100"),
                );
            }
        }
    }
}
