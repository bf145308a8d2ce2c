//! Histories of gateways, servers and the bypass path in faked time.

mod histories;
mod lossy;
mod rest;
mod restarts;
mod scenes;
mod silence;
mod world;
