//! The answer of `probe`, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Probed, Series, Way};
use crate::columns::aligned;
use crate::health::Answer;

/// The answer of the command.
pub(super) struct Page {
    probed: Result<Vec<Probed>, String>,
    count: u32,
    notes: Vec<String>,
}

/// The figures of some probes.
#[derive(Debug, Default)]
struct Figures {
    /// Those that left this host.
    sent: usize,
    latencies: Vec<Duration>,
}

impl Figures {
    fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Figures {
        let mut figures = Figures::default();
        for answer in answers {
            match answer {
                Answer::Reached(latency) => {
                    figures.sent += 1;
                    figures.latencies.push(*latency);
                }
                Answer::Failed => figures.sent += 1,
                Answer::Untried => {}
            }
        }
        figures
    }

    fn answered(&self) -> usize {
        self.latencies.len()
    }

    /// The share of the probes without an answer; `None` if none was sent.
    fn loss_percent(&self) -> Option<f64> {
        let lost = self.sent - self.answered();
        (self.sent > 0).then(|| 100.0 * lost as f64 / self.sent as f64)
    }

    /// The shortest, the mean and the longest time until an answer, in milliseconds.
    fn latency_ms(&self) -> Option<[f64; 3]> {
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let least = self.latencies.iter().min().map(ms)?;
        let most = self.latencies.iter().max().map(ms)?;
        let mean = self.latencies.iter().map(ms).sum::<f64>() / self.answered() as f64;
        Some([least, mean, most])
    }

    fn to_json(&self) -> Value {
        let latency = self.latency_ms();
        let latency =
            latency.map(|[least, mean, most]| json!({"min": least, "mean": mean, "max": most}));
        json!({
            "sent": self.sent,
            "answered": self.answered(),
            "loss_percent": self.loss_percent(),
            "latency_ms": latency,
        })
    }
}

/// The name of a way in a table.
pub(super) fn short(way: Way) -> String {
    match way {
        Way::Gateway(gateway) => format!("gateway {gateway}"),
        Way::Egress(family) => format!("{family} egress path"),
        Way::Bypass(family) => format!("{family} bypass path"),
    }
}

impl Probed {
    fn figures(&self) -> Figures {
        Figures::of(self.series.iter().flat_map(|series| &series.answers))
    }

    /// True if at least half of the servers answered.
    fn is_well(&self) -> bool {
        let answered = |series: &&Series| {
            let mut answers = series.answers.iter();
            answers.any(|answer| matches!(answer, Answer::Reached(_)))
        };
        let well = self.series.iter().filter(answered).count();
        well > 0 && 2 * well >= self.series.len()
    }

    fn to_json(&self) -> Value {
        let (kind, gateway) = match self.way {
            Way::Gateway(gateway) => ("gateway", Some(gateway)),
            Way::Egress(_) => ("egress", None),
            Way::Bypass(_) => ("bypass", None),
        };
        let servers = self.series.iter().map(|series| {
            let mut value = Figures::of(&series.answers).to_json();
            value["server"] = json!(series.server.target.to_string());
            value["address"] = json!(series.server.address.to_string());
            value
        });
        let mut value = self.figures().to_json();
        value["way"] = json!(kind);
        value["family"] = json!(self.way.family());
        value["gateway"] = json!(gateway);
        value["answers"] = match self.series.is_empty() {
            true => Value::Null,
            false => json!(self.is_well()),
        };
        value["servers"] = servers.collect();
        value
    }
}

impl Page {
    /// The page of the results with their notes, or of the reason for none; `fault` is that of a broken
    /// config.
    pub fn new(
        probed: Result<(Vec<Probed>, Vec<String>), String>,
        count: u32,
        fault: Option<String>,
    ) -> Page {
        let (probed, mut notes) = match probed {
            Ok((probed, notes)) => (Ok(probed), notes),
            Err(error) => (Err(error), Vec::new()),
        };
        for unserved in probed.iter().flatten().filter(|it| it.series.is_empty()) {
            let (way, family) = (short(unserved.way), unserved.way.family());
            notes.push(format!(
                "{way}: not probed, since no server has an {family} address"
            ));
        }
        notes.extend(fault);
        Page {
            probed,
            count,
            notes,
        }
    }

    /// The reason for which nothing was probed.
    pub fn error(&self) -> Option<&String> {
        self.probed.as_ref().err()
    }

    /// True if every probed way answers.
    pub fn is_good(&self) -> bool {
        let probed = self.probed.as_ref();
        probed.is_ok_and(|probed| {
            let mut served = probed.iter().filter(|way| !way.series.is_empty());
            served.all(Probed::is_well)
        })
    }

    /// The text for people. The last line is a sentence with the answer.
    pub fn to_text(&self) -> String {
        let Ok(probed) = &self.probed else {
            return "Nothing was probed.".to_owned();
        };
        let mut text = String::new();
        let heading = ["WAY", "SERVER", "ANSWERS", "LATENCY"];
        let mut rows = vec![heading.map(str::to_owned)];
        for way in probed {
            let name = short(way.way);
            rows.extend(way.series.iter().map(|series| cells(&name, series)));
        }
        for line in aligned(&rows, 4) {
            let _ = writeln!(text, "{line}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let served = probed.iter().filter(|way| !way.series.is_empty());
        let (well, bad): (Vec<_>, Vec<_>) = served.partition(|way| way.is_well());
        let names = |ways: &[&Probed]| {
            let names: Vec<String> = ways.iter().map(|way| short(way.way)).collect();
            names.join(", ")
        };
        let summary = match (well.as_slice(), bad.as_slice()) {
            (_, []) => "Every probed way answers.".to_owned(),
            ([], _) => "No way answers: the servers may be down, or each way.".to_owned(),
            (_, bad) => format!("No answer through {}.", names(bad)),
        };
        let _ = write!(text, "\n{summary}");
        text
    }

    /// The object of `-o json`.
    pub fn to_json(&self) -> Value {
        let probed = self.probed.iter().flatten();
        json!({
            "ways": probed.map(Probed::to_json).collect::<Vec<_>>(),
            "count": self.count,
            "good": self.is_good(),
            "error": self.error(),
            "notes": self.notes,
        })
    }
}

/// A line of the table.
fn cells(way: &str, series: &Series) -> [String; 4] {
    let figures = Figures::of(&series.answers);
    let server = series.server.target.to_string();
    let address = series.server.address.to_string();
    let latency = match figures.latency_ms() {
        Some([least, mean, most]) => format!("{mean:.1} ms ({least:.1} to {most:.1})"),
        None if figures.sent == 0 => {
            "not sent: no address of the family on this host, or no privilege".to_owned()
        }
        None => "-".to_owned(),
    };
    [
        way.to_owned(),
        match server == address {
            true => server,
            false => format!("{server} ({address})"),
        },
        format!("{} of {}", figures.answered(), figures.sent),
        latency,
    ]
}
