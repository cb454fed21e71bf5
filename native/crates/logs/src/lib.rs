//! How a program's output becomes the records of its log: cut into lines, and escaped as docker does. The one part of a container's life that
//! is as fast as our code is, and therefore built for speed, apart from the rest (`[profile.release.package]`).

pub mod framer;
pub mod record;
