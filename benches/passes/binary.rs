//! The release binary.

use super::Res;
use super::bounds::Bounds;
use super::subject::BINARY;

const MANIFEST: &str = include_str!("../../Cargo.toml");
/// The bound of tests/packages for the packaged binary.
const MOST_MIB: usize = 12;

/// Looks at size, symbols and profile.
pub fn inspect(bounds: &mut Bounds) -> Res<()> {
    let bytes = std::fs::read(BINARY)?;
    let profile = BINARY
        .split('/')
        .rev()
        .nth(1)
        .unwrap_or("unknown")
        .to_owned();
    let size = bytes.len() as f64 / f64::from(1 << 20);
    bounds.add(
        bytes.len() < MOST_MIB << 20,
        "size of the binary",
        format!("{size:.2} MiB, under {MOST_MIB} MiB"),
    );
    let symbols = has_symbols(&bytes).ok_or("the binary is no 64-bit ELF file")?;
    bounds.add(
        !symbols,
        "binary stripped",
        if symbols {
            "it has a symbol table"
        } else {
            "no symbol table"
        },
    );
    let release = MANIFEST.split("[profile.release]").nth(1).unwrap_or("");
    let release = release.split("\n[").next().unwrap_or("");
    bounds.add(
        profile == "release" && release.contains("lto = \"fat\""),
        "built with the release profile and LTO",
        format!("profile directory `{profile}`"),
    );
    Ok(())
}

/// True if a section of type `SHT_SYMTAB` exists (elf(5), 64 bits, little endian).
fn has_symbols(elf: &[u8]) -> Option<bool> {
    const SHT_SYMTAB: u32 = 2;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let offset = u64::from_le_bytes(elf.get(40..48)?.try_into().ok()?);
    let (size, count) = (usize::from(half(58)?), usize::from(half(60)?));
    for index in 0..count {
        let at = usize::try_from(offset).ok()? + index * size + 4;
        let kind = u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?);
        if kind == SHT_SYMTAB {
            return Some(true);
        }
    }
    Some(false)
}
