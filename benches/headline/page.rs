//! The page `docs/headline.md`.

use super::model::{
    CATCH_UP, QUEUE, REAL_UPLINK, SEGMENT, SEGMENT_ON_WIRE, SITE_RATE, WRITE_SEGMENTS,
};
use super::money;
use super::report::{HEADINGS, Report, cells};
use super::series::Way;
use super::verdict::{ENOUGH, LATE, LEAST_GOODPUT, MOST_DROPS, REPETITIONS};

/// GB written to S3 in the example: 100 TB.
pub const MONTH_GB: f64 = 100_000.0;

impl Report {
    /// The page, with everything that the run has found.
    pub fn page(&self) -> String {
        [
            self.summary(),
            self.model_text(),
            self.definition(),
            self.tables(),
            self.money(),
            self.bounds_text(),
            self.machine_text(),
        ]
        .join("\n")
    }

    fn capacity(&self, way: Way) -> usize {
        self.of(way).map_or(0, |one| one.capacity)
    }

    fn summary(&self) -> String {
        format!(
            "# Servers for each NAT\n\n\
             `make headline` has measured and written this page and the chart; edits are lost at the \
             next run.\n\n\
             ![Goodput against the number of servers, for each way of steering](headline.svg)\n\n\
             One NAT carries **{}** servers if everything passes through its uplink, **{}** with the \
             host role on each server, and **{}** with the nat role and a bulk interface. A script with \
             `ip route` for the same prefixes reaches {}: the capacity of a NAT depends on the path of \
             S3 alone, and [the promises](../README.md#what-it-promises) are about everything else.\n",
            self.capacity(Way::Nobody),
            self.capacity(Way::HostRole),
            self.capacity(Way::NatRole),
            self.capacity(Way::Script),
        )
    }

    fn model_text(&self) -> String {
        let model = &self.model;
        let (megabit, scale) = (|rate: f64| rate / 1e6, model.scale());
        format!(
            "## The model\n\n\
             ```text\n\
             servers ── VPC router ─┬─ customers' site\n\
             \u{20}  │          ║       └─ S3\n\
             \u{20}  └─ NAT ════╝   ═ the uplink, {uplink} Mbit/s in each direction\n\
             ```\n\n\
             Each server reads from a customer's site, which must see the NAT's fixed address, and \
             writes to S3. Servers, NAT, router, site and S3 are network namespaces of one machine, \
             joined by veth pairs and a bridge.\n\n\
             | parameter | in the model | scaled up |\n|---|---|---|\n\
             | uplink of the NAT, in each direction | {uplink} Mbit/s | {real_uplink:.0} Mbit/s |\n\
             | a server, reads and writes together | {server:.4} Mbit/s | {real_server:.0} Mbit/s |\n\
             | share of S3 | {share:.1} % | the same |\n\
             | reads of a server | {reads:.4} Mbit/s | {real_reads:.1} Mbit/s |\n\
             | writes of a server | {writes:.4} Mbit/s | {real_writes:.0} Mbit/s |\n\
             | servers with everything on the uplink: uplink / writes | {all:.2} | the same |\n\
             | servers with the reads on the uplink: uplink / reads | {egress:.2} | the same |\n\n\
             - **Scaled down**: all rates by {scale:.0}, so that {most} servers run on {cores} cores. \
             {real_uplink:.0} Mbit/s is the limit of an instance with fewer than 32 vCPUs through an \
             internet gateway ([on AWS](aws.md)). The parameters are flags: \
             `cargo bench --bench headline -- --help`.\n\
             - **Rates** of the model count headers, as the uplink does: {wire:.0} bytes for a full \
             segment of {segment} bytes. Demand and goodput count content. Acknowledgements, SYN and \
             FIN come on top.\n\
             - **The uplink** is a token bucket (tc-tbf(8)) in each direction, with a queue of {QUEUE} \
             ms. The site's link has a bucket of {SITE_RATE} times the rate, so that a site that was held up \
             sends no burst. Nothing else is shaped.\n\
             - **The load** is TCP over the kernel's own stack, paced by the senders: a read is a \
             segment at a time, a write {WRITE_SEGMENTS}. Connections follow one another, some seconds each. \
             The schedule waits for nobody: a late sender catches up, at most {CATCH_UP} times as fast.\n\
             - **The NAT** runs `trailblazer reconcile` in the nat role in every series, with \
             translation to the fixed address. Nobody steers: S3 leaves by the same uplink. Nat role: \
             `[bypass] interface` names the bulk interface.\n\
             - **Host role**: `trailblazer reconcile` on each server, with a config of its own. \
             **Script**: a default route to the NAT, and `ip route replace` for each S3 prefix of the \
             region in the same document.\n\
             - **Left out**: latency of the internet, loss elsewhere, TLS, the price of a packet \
             (`make bench-packets`), the limits of a real NAT on connections and ports, and the \
             servers' own public addresses: S3 sees the private ones.\n",
            uplink = megabit(model.uplink),
            real_uplink = REAL_UPLINK,
            server = megabit(model.server),
            real_server = megabit(model.server * scale),
            share = model.s3_share * 100.0,
            reads = megabit(model.reads()),
            real_reads = megabit(model.reads() * scale),
            writes = megabit(model.writes()),
            real_writes = megabit(model.writes() * scale),
            all = model.allowed_with_all(),
            egress = model.allowed_with_egress(),
            most = self.most(),
            cores = self.machine.cores,
            wire = SEGMENT_ON_WIRE,
            segment = SEGMENT,
        )
    }

    fn most(&self) -> usize {
        let steps = self.series.iter().flat_map(|one| &one.steps);
        steps.map(|step| step.servers).max().unwrap_or(0)
    }

    fn definition(&self) -> String {
        format!(
            "## Saturated\n\n\
             The definition is older than the first run, and the rates of a server are not: trial runs \
             have set them. A NAT is saturated if the goodput of reads or of writes is below {:.0} % of \
             its demand, or if the uplink's queues drop more than {:.1} % of the packets. The capacity \
             is the largest number of servers below the first saturated one.\n\n\
             A series ends after {ENOUGH} saturated numbers in a row. The ways with a bypass skip the \
             numbers around the capacity without a bypass. The load generator shares the cores with the \
             network: if the generator is more than {LATE:.0} ms late (99th percentile), and a NAT that \
             should carry the servers by the model comes out saturated, the measurement is repeated, \
             at most {REPETITIONS} times.\n",
            LEAST_GOODPUT * 100.0,
            MOST_DROPS * 100.0
        )
    }

    fn tables(&self) -> String {
        let mut text = String::from(
            "## Figures\n\n\
             Demand and goodput: Mbit/s of content. Packets and drops: of the uplink, both directions. \
             Failed: connections refused, timed out or broken, of all. p50 and p99: from the first SYN \
             to the established connection. Late: the load generator's delay at the 99th percentile. ✗: \
             saturated.\n",
        );
        for one in &self.series {
            text.push_str(&format!(
                "\n**{}**: {} servers\n\n| {} |\n|{}\n",
                one.way.name(),
                one.capacity,
                HEADINGS.join(" | "),
                "---:|".repeat(HEADINGS.len())
            ));
            for step in &one.steps {
                text.push_str(&format!("| {} |\n", cells(step).join(" | ")));
            }
        }
        let repeated: u32 = self
            .series
            .iter()
            .flat_map(|one| &one.steps)
            .map(|step| step.repeated)
            .sum();
        text.push_str(&format!("\nRepeated measurements: {repeated}.\n"));
        text
    }

    fn money(&self) -> String {
        let price = self.model.price;
        let mut text = format!(
            "## In money\n\n\
             A NAT gateway has a price for each GB, in either direction: {price} dollars, the list \
             price of us-east-1 ([costs](aws.md#what-it-costs); `--price` for another). The formula:\n\n\
             ```text\n\
             dollars = price × GB written to S3 × (bytes through the uplink, both directions / bytes written)\n\
             ```\n\n\
             The last factor is measured, at {} servers, with headers and the reads from customers' \
             sites. The price per hour of a gateway, a NAT instance or a public address is not in it; a \
             NAT instance has no price per GB.\n\n\
             | | bytes through the uplink for each byte written | dollars for 100 TB written |\n|---|---:|---:|\n",
            self.common()
        );
        for (way, factor) in self.uplink_per_written() {
            let dollars = money::dollars(price, MONTH_GB, factor);
            text.push_str(&format!(
                "| {} | {factor:.4} | {dollars:.2} |\n",
                way.name()
            ));
        }
        text
    }

    fn bounds_text(&self) -> String {
        let mut text = String::from("## Bounds\n\n| | | |\n|---|---|---|\n");
        for bound in &self.bounds {
            let verdict = if bound.holds { "PASS" } else { "**FAIL**" };
            text.push_str(&format!(
                "| {verdict} | {} | {} |\n",
                bound.what, bound.figure
            ));
        }
        text
    }

    fn machine_text(&self) -> String {
        let machine = &self.machine;
        format!(
            "## Machine\n\n{}, {} cores, load {} at the end. Linux {}, {}. Trailblazer {}, the release \
             build. The run took {:.0} s.\n",
            machine.cpu,
            machine.cores,
            machine.load,
            machine.kernel,
            machine.iproute2,
            machine.trailblazer,
            self.seconds
        )
    }
}
