//! A disk that never answers, as a network file system whose server is gone.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// FUSE with a server that answers nothing, as long as the shell lives.
const SERVER: &str = "exec 5<>/dev/fuse && mount -i -t fuse \
     -o fd=5,rootmode=40000,user_id=0,group_id=0 gone \"$0\" && echo mounted && exec cat";

/// A silent disk, mounted until the drop.
#[derive(Debug)]
pub struct SilentDisk {
    server: Child,
    directory: PathBuf,
}

impl SilentDisk {
    /// Mounts the disk on a directory: no access below the directory ever ends.
    ///
    /// # Panics
    /// If the mount fails.
    pub fn mount(directory: &Path) -> SilentDisk {
        let mut server = Command::new("sh")
            .args(["-c", SERVER])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = [0; 8];
        let output = server.stdout.as_mut().expect("stdout is piped");
        let mounted = output.read_exact(&mut line);
        assert!(mounted.is_ok() && line == *b"mounted\n", "FUSE is mounted");
        SilentDisk {
            server,
            directory: directory.to_owned(),
        }
    }
}

impl Drop for SilentDisk {
    fn drop(&mut self) {
        // Without a server, each pending access ends with an error.
        drop(self.server.stdin.take());
        let _ended = self.server.wait();
        let unmount = Command::new("umount")
            .arg("-l")
            .arg(&self.directory)
            .status();
        assert!(
            unmount.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "{} is unmounted",
            self.directory.display()
        );
    }
}
