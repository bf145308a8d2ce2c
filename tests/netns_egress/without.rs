//! The same scenes without the product: packets with a wrong address arrive, so that the matrix can
//! see each fault.

use crate::matrix::rows;
use crate::packets::Firewall;
use crate::scene::*;
use lab::*;

fn leaks(kind: Kind) {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, Firewall::Nftables);
    for row in rows(kind, Firewall::Nftables) {
        scene.network_down();
        (row.early)(&scene);
        let probe = scene.probe();
        scene.network_up();
        (row.late)(&scene);
        // A link without carrier closes the path, until its return.
        let closed = row.partner == [false; 2];
        if closed {
            (row.mend)(&scene);
        }
        eventually(row.name, || !probe.wrong().is_empty());
        if !closed {
            (row.mend)(&scene);
        }
        drop(probe);
    }
}

#[test]
fn boot_of_a_host_without_the_product_shows_wrong_addresses() {
    isolated(|| leaks(Kind::Host));
}

#[test]
fn boot_of_a_nat_without_the_product_shows_wrong_addresses() {
    isolated(|| leaks(Kind::Nat));
}
