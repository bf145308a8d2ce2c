//! The client of EC2's Query API.
