//! To be written.
#[derive(Debug)]
pub struct ConfigError;
#[derive(Debug)]
pub struct Overrides;
pub fn load() {}
pub fn parse() {}
