//! `[egress] enforce`.

use super::Mistakes;
use crate::config::Config;

impl Mistakes {
    pub(super) fn enforced(&mut self, config: &Config) {
        if config.egress.enforce && config.kernel.gateway_mask.count_ones() < 2 {
            self.add(
                &["kernel.marks.gateway", "egress.enforce"],
                "egress.enforce needs two bits of kernel.marks.gateway: write a mask such as \"0x000e\"",
            );
        }
    }
}
