//! Saved rulesets: the files that a firewall service loads with `nft -f`.
//!
//! `nft list ruleset > /etc/nftables.conf` also saves our table. While an agent protects that table,
//! the kernel refuses such a file as a whole, and the restart of the service would end without the
//! rules of the operator.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::firewall::nftables::is_our_table;

/// Files of nftables.service: of Debian, Ubuntu and Arch Linux; of Fedora and RHEL; of Alpine.
const FILES: [&str; 3] = [
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/nftables.nft",
];

/// Directories whose files those files include.
const DIRECTORIES: [&str; 2] = ["/etc/nftables", "/etc/nftables.d"];

/// Directories in which a file or directory from above may appear.
const PARENTS: [&str; 2] = ["/etc", "/etc/sysconfig"];

/// The most bytes of a file that are read. A ruleset with all prefixes of AWS has 0.4 MB.
const MAX_BYTES: u64 = 16 << 20;

/// A file that forbids the protection of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SavedRuleset {
    OurTable(PathBuf),
    /// The file may have our table.
    Unreadable(PathBuf, String),
}

impl fmt::Display for SavedRuleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SavedRuleset::OurTable(file) => write!(f, "{} contains the table", file.display()),
            SavedRuleset::Unreadable(file, why) => {
                write!(f, "{} may contain the table: {why}", file.display())
            }
        }
    }
}

impl SavedRuleset {
    /// The remedy for the operator.
    pub fn advice(&self) -> &'static str {
        match self {
            SavedRuleset::OurTable(_) => "remove the table from the file",
            SavedRuleset::Unreadable(..) => {
                "make the file readable, or write protect_table = true or false"
            }
        }
    }
}

/// The first saved ruleset with our table; of the others the first unreadable one.
pub fn with_our_table() -> Option<SavedRuleset> {
    let mut unreadable = None;
    let mut files: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for directory in DIRECTORIES {
        match listed(Path::new(directory)) {
            Ok(found) => files.extend(found),
            Err(error) => note_unreadable(&mut unreadable, directory.into(), &error),
        }
    }
    for file in files {
        match read(&file) {
            Ok(text) if has_our_table(&text) => return Some(SavedRuleset::OurTable(file)),
            Ok(_) => {}
            Err(error) => note_unreadable(&mut unreadable, file, &error),
        }
    }
    unreadable
}

fn note_unreadable(first: &mut Option<SavedRuleset>, file: PathBuf, error: &io::Error) {
    first.get_or_insert_with(|| SavedRuleset::Unreadable(file, error.to_string()));
}

fn listed(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The text of a file; empty for an absent file and for all that is no file.
fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(io::Error::other(format!(
                "the file has more than {} MiB",
                MAX_BYTES >> 20
            )));
        }
        Ok(metadata) if metadata.is_file() => {
            File::open(file)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        }
        Ok(_) => {}
        Err(error) if is_absent(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// True if the text creates our table, as `nft list ruleset` prints it.
fn has_our_table(text: &str) -> bool {
    let code = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line));
    let words: Vec<&str> = code
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "{};".contains(c)))
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(3).any(|three| {
        let [keyword, family, name] = three else {
            return false;
        };
        *keyword == "table" && *family == "inet" && is_our_table(name)
    })
}

/// The kernel's notifications of changes to the files.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Asks for notifications.
    ///
    /// # Errors
    /// The kernel refuses an inotify instance.
    pub fn watch() -> io::Result<Self> {
        let changes = Changes(inotify::init(CreateFlags::CLOEXEC)?);
        changes.watch_present();
        Ok(changes)
    }

    /// A bind mount hides the changes of a file from its directory: the files are watched too.
    fn watch_present(&self) {
        let content = WatchFlags::CLOSE_WRITE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let entries = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        let files = FILES.iter().map(|file| (file, content));
        let directories = PARENTS.iter().chain(&DIRECTORIES);
        for (path, flags) in files.chain(directories.map(|directory| (directory, entries))) {
            // An absent path is watched after its parent has told of it.
            let _absent = inotify::add_watch(&self.0, *path, flags);
        }
    }

    /// Waits for a change that may concern a saved ruleset.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn wait(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::IGNORED) => {}
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy());
                    if name.is_none_or(|name| concerns(&name)) {
                        self.watch_present();
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// True for the name of a file or directory from above, and for a file that they may include.
fn concerns(name: &str) -> bool {
    name.contains("nft") || name == "sysconfig"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_table_is_found_in_rulesets() {
        for text in [
            "table inet trailblazer {\n\tflags owner\n}\n",
            "flush ruleset\nadd table inet trailblazer;",
            "table inet filter {}\ntable inet trailblazer-guard { # progname trailblazer\n}",
            "table  inet\ttrailblazer{\n}",
        ] {
            assert!(has_our_table(text), "{text}");
        }
        for text in [
            "",
            "table ip trailblazer {\n}",
            "table inet trailblazer-of-mine {\n}",
            "# table inet trailblazer {\n",
            "table inet filter { chain trailblazer { } }",
        ] {
            assert!(!has_our_table(text), "{text}");
        }
    }
}
