//! The actions by name, and the checks that several actions share.

use std::sync::Arc;

use crate::answer::{ApiError, Xml};
use crate::knobs::Settings;
use crate::request::Request;
use crate::state::{Effect, State};
use crate::{list_reads, list_writes, routes, tables, tags, targets};

/// A function that answers a reading action.
pub(crate) type Read = fn(&State, &Settings, &Request) -> Result<Xml, ApiError>;

/// A function that runs a changing action. The number of reads at which a change in progress ends
/// is the third argument. After an error the state is put back.
pub(crate) type Write = fn(&mut State, &Settings, usize, &Request) -> Result<Xml, ApiError>;

/// An action.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    Read(Read),
    Write(Write),
}

/// The action of a name.
pub(crate) fn find(name: &str) -> Option<Action> {
    use Action::{Read, Write};
    Some(match name {
        "CreateManagedPrefixList" => Write(list_writes::create),
        "ModifyManagedPrefixList" => Write(list_writes::modify),
        "RestoreManagedPrefixListVersion" => Write(list_writes::restore),
        "DeleteManagedPrefixList" => Write(list_writes::delete),
        "CreateRoute" => Write(routes::create),
        "ReplaceRoute" => Write(routes::replace),
        "DeleteRoute" => Write(routes::delete),
        "CreateTags" => Write(tags::create),
        "DeleteTags" => Write(tags::delete),
        "DescribeManagedPrefixLists" => Read(list_reads::describe),
        "GetManagedPrefixListEntries" => Read(list_reads::entries),
        "GetManagedPrefixListAssociations" => Read(list_reads::associations),
        "DescribeRouteTables" => Read(tables::describe),
        "DescribeVpcs" => Read(tables::describe_vpcs),
        "DescribeTags" => Read(tags::describe),
        "DescribeInternetGateways" => Read(targets::internet_gateways),
        "DescribeEgressOnlyInternetGateways" => Read(targets::egress_only_gateways),
        "DescribeNatGateways" => Read(targets::nat_gateways),
        "DescribeNetworkInterfaces" => Read(targets::interfaces),
        "DescribeVpcPeeringConnections" => Read(targets::peerings),
        "DescribeTransitGatewayVpcAttachments" => Read(targets::transit_attachments),
        "DescribeVpcEndpoints" => Read(targets::endpoints),
        _ => return None,
    })
}

/// The error of a list that doesn't exist.
pub(crate) fn no_list(id: &str) -> ApiError {
    if !id.starts_with("pl-") {
        let text = format!("Invalid id: \"{id}\" (expecting \"pl-...\")");
        return ApiError::new("InvalidPrefixListId.Malformed", text);
    }
    let text = format!("The prefix list ID '{id}' does not exist");
    ApiError::new("InvalidPrefixListID.NotFound", text)
}

/// The error of a route table that doesn't exist.
pub(crate) fn no_table(id: &str) -> ApiError {
    let text = format!("The routeTable ID '{id}' does not exist");
    ApiError::new("InvalidRouteTableID.NotFound", text)
}

/// The objects that a changing request names must exist, for a dry run too: permission is asked
/// for the object.
pub(crate) fn named_objects(state: &State, request: &Request) -> Result<(), ApiError> {
    for key in ["PrefixListId", "DestinationPrefixListId"] {
        if let Some(id) = request.get(key) {
            state.lists.get(id).ok_or_else(|| no_list(id))?;
        }
    }
    if let Some(id) = request.get("RouteTableId") {
        state.tables.get(id).ok_or_else(|| no_table(id))?;
    }
    for id in request.values("ResourceId") {
        tags::resource_type(state, id)?;
    }
    Ok(())
}

/// Ends the change of a list.
pub(crate) fn finish(state: &mut State, id: &str, keep: usize) {
    let Some(list) = state.lists.get_mut(id) else {
        return;
    };
    let Some(change) = list.change.take() else {
        return;
    };
    list.state = format!("{}-complete", change.verb);
    list.message = None;
    match change.effect {
        Effect::None => {}
        Effect::Entries(entries) => {
            list.versions.push(Arc::clone(&entries));
            while list.versions.len() > keep.max(1) {
                list.versions.remove(0);
                list.first += 1;
            }
        }
        Effect::Resize(max) => list.max_entries = max,
        Effect::Failed(message) => {
            list.state = format!("{}-failed", change.verb);
            list.message = Some(message);
        }
        Effect::Deleted => {
            state.lists.remove(id);
            state.tags.remove(id);
        }
    }
}
