//! The state directory as a descriptor, and the only function to open a file in the directory.
//!
//! The directory usually belongs to an unprivileged service user, and root runs `reconcile` and
//! `flush` there. The service user can replace any name: by a link to a file of root's, by a FIFO
//! with an open that never returns, or by a hard link. So no operation follows a path into the
//! directory. Every file is opened relative to the descriptor without following links, checked
//! through the file's own descriptor, and written or given away only after the checks.

use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat, open,
    openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::StateFile;
use super::error::{FileKind, StateError, StateProblem};

/// Owner and group only: the journal shows which addresses the host talks to.
pub const DIR_MODE: u32 = 0o750;
/// The mode of the files in the directory.
pub const FILE_MODE: u32 = 0o640;

/// For every open. `NONBLOCK` keeps a FIFO or a lease of another process from stopping the open;
/// reads and writes of regular files ignore the flag.
const OPEN: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// The number of tries against a name that appears and disappears between two system calls.
const RACES: usize = 8;

/// The state directory.
///
/// The configured path may lead through symbolic links, by the administrator's choice. The kernel
/// resolves the links once, at the open. From then on, all names are single components below the
/// descriptor.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    descriptor: OwnedFd,
    owner: Uid,
    group: Gid,
    mode: u32,
}

impl StateDir {
    /// Opens the directory; `None` if there is none. Needs no more than search permission.
    ///
    /// # Errors
    /// [`StateError`] for any other reason than absence. A dangling link in the path is an error
    /// too: the target may be a volume, not mounted yet.
    pub fn open(path: &Path) -> Result<Option<StateDir>, StateError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = match open(path, flags, Mode::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::NOENT) => {
                return match dangling_link(path) {
                    Some(problem) => Err(StateError::wrap("open the state dir", path)(problem)),
                    None => Ok(None),
                };
            }
            Err(errno) => {
                // The flags follow links, so that ELOOP means a circle of links.
                let problem = StateProblem::System(errno.into());
                return Err(StateError::wrap("open the state dir", path)(problem));
            }
        };
        let stat = fstat(&descriptor).map_err(StateError::wrap("look at the state dir", path))?;
        Ok(Some(StateDir {
            path: path.to_owned(),
            descriptor,
            owner: Uid::from_raw(stat.st_uid),
            group: Gid::from_raw(stat.st_gid),
            mode: stat.st_mode & 0o7777,
        }))
    }

    /// Opens the directory; a missing directory is created first, with mode [`DIR_MODE`].
    ///
    /// # Errors
    /// [`StateError`], for example where a file has the directory's name.
    pub fn create(path: &Path) -> Result<StateDir, StateError> {
        match StateDir::open(path) {
            Ok(Some(directory)) => return Ok(directory),
            Err(error) if error.is_dangling() => return Err(error),
            // The creation meets the same reason again, and reports the failed creation.
            Ok(None) | Err(_) => {}
        }
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
            .map_err(StateError::wrap("create the state dir", path))?;
        StateDir::open(path)?
            .ok_or_else(|| StateError::wrap("open the state dir", path)(StateProblem::Replaced))
    }

    /// A warning where every user may create files in the directory. No failure: volumes of
    /// containers often come with mode 0777, and no file of another user is ever trusted.
    pub fn warning(&self) -> Option<String> {
        (self.mode & 0o002 != 0).then(|| {
            format!(
                "every user may create files in the state dir {} (mode {:04o}): take the right away (chmod o-w)",
                self.path.display(),
                self.mode
            )
        })
    }

    /// Opens a file for reading; `None` if there is none.
    ///
    /// # Errors
    /// [`StateError`], also for an irregular file and for a file of another user.
    pub fn open_to_read(&self, file: StateFile) -> Result<Option<File>, StateError> {
        let opened = self.open_existing(file.name(), OFlags::RDONLY);
        Ok(opened
            .map_err(self.failed("read", file.name()))?
            .map(|(opened, _)| opened))
    }

    /// Opens a file for reading and writing in place; a missing file is created first. The content
    /// stays. An empty file is given to the owner of the directory.
    ///
    /// # Errors
    /// [`StateError`], also for an irregular file, a file of another user, and a hard link.
    pub fn open_to_update(&self, file: StateFile, more: OFlags) -> Result<File, StateError> {
        let name = file.name();
        let flags = OFlags::RDWR | more;
        for _ in 0..RACES {
            let existing = self
                .open_existing(name, flags)
                .and_then(|opened| match opened {
                    Some((opened, stat)) => self
                        .check_only_name(name, &stat)
                        .map(|()| Some((opened, stat))),
                    None => Ok(None),
                })
                .map_err(self.failed("open", name))?;
            if let Some((opened, stat)) = existing {
                // A file with content could be another user's, moved here by the service user.
                if stat.st_size == 0 {
                    self.give_to_owner(&opened);
                }
                return Ok(opened);
            }
            match self.open_new(name, flags) {
                Ok(created) => return Ok(created),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("create", name)(errno)),
            }
        }
        Err(self.failed("open", name)(StateProblem::Replaced))
    }

    /// Creates a file for writing; the name must be free.
    pub(super) fn create_new(&self, name: &str) -> Result<File, StateError> {
        self.open_new(name, OFlags::WRONLY)
            .map_err(self.failed("create", name))
    }

    /// Renames a file; an existing one of the new name is replaced, a link is not followed.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        renameat(&self.descriptor, from, &self.descriptor, to)
            .map_err(self.failed("put the new file in place of", to))
    }

    /// Renames a file to another one of the directory.
    ///
    /// # Errors
    /// [`StateError`] when the system refuses.
    pub fn rename_file(&self, from: StateFile, to: StateFile) -> Result<(), StateError> {
        self.rename(from.name(), to.name())
    }

    /// Removes a name; whether there was one.
    pub(super) fn remove(&self, name: &str) -> Result<bool, StateError> {
        match unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("remove", name)(errno)),
        }
    }

    /// Waits until new names are on disk: a power cut can undo a rename that has not been synced.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails.
    pub fn sync(&self) -> Result<(), StateError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.descriptor, ".", flags, Mode::empty())
            .and_then(rustix::fs::fsync)
            .map_err(StateError::wrap("fsync the directory", &self.path))
    }

    fn failed<P: Into<StateProblem>>(
        &self,
        operation: &'static str,
        name: &str,
    ) -> impl FnOnce(P) -> StateError + use<P> {
        StateError::wrap(operation, &self.path.join(name))
    }

    /// Opens an existing file. Checks the kind before the open, since the open of a device node can
    /// act on the device, and once more through the descriptor, which nobody can exchange.
    fn open_existing(
        &self,
        name: &str,
        flags: OFlags,
    ) -> Result<Option<(File, Stat)>, StateProblem> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => check_regular(&stat)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let opened = match self.open_beneath(name, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&opened)?;
        check_regular(&stat)?;
        let trusted = [Uid::ROOT, rustix::process::geteuid(), self.owner];
        if !trusted.contains(&Uid::from_raw(stat.st_uid)) {
            return Err(StateProblem::Owner { owner: stat.st_uid });
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o002 != 0 {
            return Err(StateProblem::WorldWritable { mode });
        }
        Ok(Some((File::from(opened), stat)))
    }

    /// Checks that the opened file has the name and no other name. The link count is read through
    /// the name, not through the descriptor: the service user could remove a hard link to a file of
    /// root's right after the open, and the descriptor would then show a link count of 1.
    fn check_only_name(&self, name: &str, opened: &Stat) -> Result<(), StateProblem> {
        let stat = statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (stat.st_dev, stat.st_ino) != (opened.st_dev, opened.st_ino) {
            return Err(StateProblem::Replaced);
        }
        if stat.st_nlink != 1 {
            return Err(StateProblem::HardLinks);
        }
        Ok(())
    }

    fn open_new(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let created = self.open_beneath(name, flags, Mode::from_raw_mode(FILE_MODE))?;
        // The umask may have taken bits away.
        fchmod(&created, Mode::from_raw_mode(FILE_MODE))?;
        let created = File::from(created);
        self.give_to_owner(&created);
        Ok(created)
    }

    fn open_beneath(&self, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let (flags, resolve) = (
            OPEN | flags,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        );
        match openat2(&self.descriptor, name, flags, mode, resolve) {
            // No such system call before Linux 5.6, or a seccomp filter from before then. For a
            // name of one component, O_NOFOLLOW excludes the same links.
            Err(Errno::NOSYS | Errno::PERM) => openat(&self.descriptor, name, flags, mode),
            answer => answer,
        }
    }

    /// Gives an empty file to the owner of the directory: the agent, under the service user, must be
    /// able to read and replace files created by root. A refusal is no failure: the caller is the
    /// owner already, or root without CAP_CHOWN, and the agent then runs as root too.
    fn give_to_owner(&self, file: &File) {
        let wanted = (self.owner.as_raw(), self.group.as_raw());
        if fstat(file).is_ok_and(|stat| (stat.st_uid, stat.st_gid) != wanted) {
            let _ = fchown(file, Some(self.owner), Some(self.group));
        }
    }
}

fn check_regular(stat: &Stat) -> Result<(), StateProblem> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => FileKind::SymbolicLink,
        FileType::Directory => FileKind::Directory,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice | FileType::BlockDevice => FileKind::Device,
        FileType::Unknown => FileKind::Unknown,
    };
    Err(StateProblem::NotRegular(kind))
}

/// The dangling link in the path, if there is one.
fn dangling_link(path: &Path) -> Option<StateProblem> {
    path.ancestors().find_map(|part| {
        let target = std::fs::read_link(part).ok()?;
        (!part.exists()).then(|| StateProblem::Dangling {
            link: part.to_owned(),
            target,
        })
    })
}

/// A separate file system for an isolated test (mount(8): `size=64k`; `remount,ro`).
#[cfg(test)]
pub(crate) fn small_disk(options: &str) -> std::path::PathBuf {
    let directory = std::path::PathBuf::from("/run/lab/disk");
    std::fs::create_dir_all(&directory).expect("the test's own /run");
    // With an explicit source, a remount repeats no option forbidden in a user namespace.
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(&directory)
        .status();
    assert!(mounted.expect("mount(8) is there").success());
    directory
}

#[cfg(test)]
mod tests;
