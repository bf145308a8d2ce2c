//! `trailblazer drain`: leads new flows around a gateway for planned work.

use std::path::Path;

use serde_json::json;

use super::flows::on_gateway;
use super::kick::{snapshot, wait_for_pass};
use super::{broken_config, complain, print};
use crate::cli::DrainArgs;
use crate::exit;
use crate::reconcile::Cause;
use crate::status::control::{AskError, Reply, Request, ask};
use crate::status::snapshot::{GatewayStatus, PassStatus};
use crate::words::counted;

/// The gateways after the pass of a drain.
struct Drained {
    pass: PassStatus,
    /// `None` if the agent knows no such gateway any more.
    gateway: Option<GatewayStatus>,
    /// The gateways for new flows of the family.
    used: Vec<String>,
}

/// Runs `drain` and returns the exit code.
pub async fn run(arguments: &DrainArgs) -> u8 {
    let base = &arguments.base;
    let shown = match broken_config::settings(base, &base.overrides()) {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let address = arguments.gateway;
    let config = &shown.loaded.config;
    let drained = drain(&config.agent.socket, arguments).await;
    // The agent's count is a second old, and the flows of this second are on the gateway too.
    let flows = match on_gateway(&shown, address) {
        Ok(flows) => Some(flows),
        Err(_) => drained
            .as_ref()
            .ok()
            .and_then(|found| found.gateway.as_ref()?.flows),
    };
    let error = match &drained {
        Ok(drained) => drained.pass.error.clone(),
        Err(error) => Some(error.clone()),
    };
    let outcome = match (&drained, arguments.undo) {
        (Err(_), _) => "failed",
        (Ok(_), false) => "drained",
        (Ok(_), true) => "undone",
    };
    let found = drained.as_ref().ok();
    let gateway = found.and_then(|found| found.gateway.as_ref());
    let value = json!({
        "gateway": address,
        "outcome": outcome,
        "in_use": gateway.map(|gateway| gateway.in_use),
        "since": gateway.and_then(|gateway| Some(gateway.drained.as_ref()?.since)),
        "flows": flows,
        "new_flows": found.map(|found| &found.used),
        "error": error,
        "notes": shown.fault.as_deref().into_iter().collect::<Vec<_>>(),
    });
    let text = match found {
        Some(found) => found.text(arguments, flows),
        None => format!(
            "Failed: gateway {address} is not {}.",
            if arguments.undo {
                "undrained"
            } else {
                "drained"
            }
        ),
    };
    print(base.output, || text, || value);
    match error {
        Some(error) => {
            complain(&error);
            exit::FAILED
        }
        None => exit::OK,
    }
}

/// Asks the agent, waits for its pass, and looks at the gateways.
async fn drain(socket: &Path, arguments: &DrainArgs) -> Result<Drained, String> {
    let (gateway, undo) = (arguments.gateway, arguments.undo);
    let request = match undo {
        true => Request::Undrain { gateway },
        false => Request::Drain {
            gateway,
            by: format!("drain, pid {}", std::process::id()),
        },
    };
    let before = match ask(socket, Request::Status) {
        Ok(Reply::Status(status)) => status.pass_totals.duration.count,
        Err(error @ AskError::NoAgent { .. }) => {
            return Err(format!(
                "{error}. Only an agent drains a gateway; without one, take the gateway out of [egress] \
                 gateways and run `trailblazer reconcile`: its open flows keep it too"
            ));
        }
        Err(error) => return Err(error.to_string()),
        Ok(_) => return Err("unexpected reply from the agent".to_owned()),
    };
    match ask(socket, request) {
        Ok(Reply::Done) => {}
        Ok(Reply::Refused(why)) => return Err(format!("the agent refused: {why}")),
        Ok(Reply::Status(_) | Reply::Settings(_)) => {
            return Err("unexpected reply from the agent".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    }
    let pass = wait_for_pass(socket, before, Cause::Drain.as_str()).await?;
    let status = snapshot(socket)?;
    let address = gateway.to_string();
    let egress = status.gateways.iter().filter(|it| it.path == "egress");
    let found = egress.clone().find(|it| it.address == address).cloned();
    let family = found.as_ref().map(|found| found.family);
    let used = egress.filter(|it| it.in_use && Some(it.family) == family);
    Ok(Drained {
        pass,
        used: used.map(|it| it.address.clone()).collect(),
        gateway: found,
    })
}

impl Drained {
    fn text(&self, arguments: &DrainArgs, flows: Option<u64>) -> String {
        let address = arguments.gateway;
        let used = match self.used.as_slice() {
            [] => "no gateway".to_owned(),
            used => used.join(" and "),
        };
        if arguments.undo {
            return format!("Gateway {address} is not drained any more: new flows take {used}.");
        }
        let flows = match flows {
            Some(0) => "No open flow is left on it.".to_owned(),
            Some(flows) => format!(
                "{} left on it: `trailblazer flows --all` lists them, `trailblazer status` counts them.",
                match flows {
                    1 => "1 open flow is".to_owned(),
                    flows => format!("{} are", counted(flows, "open flow")),
                }
            ),
            None => {
                "The open flows are not counted: without pins (`trailblazer flows` tells why) they \
                     take the other gateway too."
                    .to_owned()
            }
        };
        format!(
            "Gateway {address} is drained: new flows take {used}. {flows}\n\
             End of the drain: trailblazer drain {address} --undo"
        )
    }
}
