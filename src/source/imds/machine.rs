//! The marks of an EC2 instance, readable without a question to anybody.
//!
//! The addresses of the metadata service are link-local. Outside of EC2 whoever shares the link can
//! answer there, and the answers decide the path of traffic.

use std::path::Path;

use super::is_instance_id;

/// The marks by "Detect whether a host is an EC2 instance" (Amazon EC2 User Guide): below
/// `class/dmi/id` on Nitro instances and bare metal, `hypervisor/uuid` on Xen. `sys` is `/sys`.
pub fn is_ec2(sys: &Path) -> bool {
    let read = |name: &str| {
        // An absent or unreadable file (`product_uuid` is root's) is no mark.
        let text = std::fs::read(sys.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_ascii_lowercase()
    };
    let dmi = |name: &str| read(&format!("class/dmi/id/{name}"));
    let vendor = dmi("sys_vendor");
    vendor == "amazon ec2"
        || dmi("board_vendor") == "amazon ec2"
        || is_instance_id(&dmi("board_asset_tag"))
        || is_uuid_of_ec2(&dmi("product_uuid"), vendor == "xen")
        || is_uuid_of_ec2(&read("hypervisor/uuid"), true)
}

/// True for a UUID that begins with `ec2`. SMBIOS before 2.6 swaps the bytes of the first group;
/// by chance alone one UUID of 4096 looks like that, so the swapped form counts with Xen only.
fn is_uuid_of_ec2(uuid: &str, is_xen: bool) -> bool {
    let swapped = uuid.get(6..8).zip(uuid.get(4..6));
    uuid.starts_with("ec2")
        || is_xen && swapped.is_some_and(|(first, second)| first == "ec" && second.starts_with('2'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_ec2_are_recognised() {
        for (file, text, expected) in [
            ("class/dmi/id/sys_vendor", "Amazon EC2\n", true),
            ("class/dmi/id/board_vendor", "Amazon EC2\n", true),
            (
                "class/dmi/id/board_asset_tag",
                "i-0123456789abcdef0\n",
                true,
            ),
            (
                "class/dmi/id/product_uuid",
                "EC2AE145-D1DC-13B2-94ED-012345ABCDEF\n",
                true,
            ),
            (
                "class/dmi/id/product_uuid",
                "ec2e1916-9099-7caf-fd21-012345abcdef\n",
                true,
            ),
            (
                "hypervisor/uuid",
                "ec2e1916-9099-7caf-fd21-012345abcdef\n",
                true,
            ),
            (
                "hypervisor/uuid",
                "45E12AEC-DCD1-B213-94ED-012345ABCDEF\n",
                true,
            ),
            (
                "class/dmi/id/product_uuid",
                "45E12AEC-DCD1-B213-94ED-012345ABCDEF\n",
                false,
            ),
            ("class/dmi/id/sys_vendor", "QEMU\n", false),
            ("class/dmi/id/sys_vendor", "Amazon EC2 look-alike\n", false),
            ("class/dmi/id/board_asset_tag", "Not Specified\n", false),
            (
                "class/dmi/id/product_uuid",
                "\u{e4}\u{e4}\u{e4}\u{e4}ec",
                false,
            ),
        ] {
            let sys = tempfile::tempdir().unwrap();
            assert!(!is_ec2(sys.path()), "an empty directory has no mark");
            let path = sys.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_ec2(sys.path()), expected, "{file}: {text:?}");
        }
    }
}
