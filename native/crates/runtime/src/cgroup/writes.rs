//! One limit as one write to one file, and the order in which the writes of a group are made.

use super::files::Files;
use crate::sys;
use shoal_protocol::{Failure, FailureCode};
use std::borrow::Cow;
use std::io;
use std::path::Path;

/// What it means that the kernel does not have the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be kept: an error.
    Refuse,
    /// Nothing is lost: the value asks for no limit, or for something that this kernel always does.
    Skip,
}

/// One value of the configuration in the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where in the configuration it comes from, below `linux.resources`.
    pub field: Cow<'static, str>,
    pub file: Cow<'static, str>,
    /// The same thing on other kernels: its file and value, tried when `file` is not there.
    pub other: Option<(Cow<'static, str>, String)>,
    pub value: String,
    pub absent: Absent,
}

impl Write {
    /// A limit that must be kept.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            field: field.into(),
            file: file.into(),
            other: None,
            value: value.to_string(),
            absent: Absent::Refuse,
        }
    }

    /// With another file and value for kernels that lack the first.
    pub fn or(mut self, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        self.other = Some((file.into(), value.to_string()));
        self
    }

    /// Without the file nothing is lost, when `so`.
    pub fn skip_if(mut self, so: bool) -> Self {
        if so {
            self.absent = Absent::Skip;
        }
        self
    }

    /// Whether the machine must be able to keep it.
    pub fn is_required(&self) -> bool {
        self.absent == Absent::Refuse
    }
}

/// Makes the writes in their order. Some values are only taken in the right order, which depends on what was there before
/// (memory and memory+swap, quota and period and burst): what the kernel calls invalid is tried once more after the others.
pub fn apply(files: &dyn Files, dir: &Path, writes: &[Write]) -> Result<(), Failure> {
    let mut later = Vec::new();
    for write in writes {
        match make(files, dir, write) {
            Err(error) if sys::is(&error, libc::EINVAL) && writes.len() > 1 => later.push(write),
            Err(error) => return Err(failed(files, dir, write, &error)),
            Ok(()) => {}
        }
    }
    for write in later {
        make(files, dir, write).map_err(|error| failed(files, dir, write, &error))?;
    }
    Ok(())
}

fn make(files: &dyn Files, dir: &Path, write: &Write) -> io::Result<()> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut made = files.write(&dir.join(write.file.as_ref()), &write.value);
    if let (Err(error), Some((file, value))) = (&made, &write.other)
        && absent(error)
    {
        made = files.write(&dir.join(file.as_ref()), value);
    }
    match made {
        Err(error) if absent(&error) && write.absent == Absent::Skip => Ok(()),
        other => other,
    }
}

fn failed(files: &dyn Files, dir: &Path, write: &Write, error: &io::Error) -> Failure {
    let doing = format!(
        "setting linux.resources.{}: writing {:?} to {}",
        write.field,
        write.value,
        dir.join(write.file.as_ref()).display()
    );
    if error.kind() == io::ErrorKind::NotFound {
        let mut failure = Failure::io(doing, error);
        failure.message = "this kernel has no such file, so that the limit cannot be kept".into();
        return failure;
    }
    let mut failure = Failure::io(doing, error);
    if matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ERANGE | libc::ENODEV)
    ) {
        failure.code = FailureCode::Invalid;
    }
    if sys::is(error, libc::EBUSY)
        && write.file.starts_with("memory.")
        && let Ok(used) = files.read(&dir.join("memory.usage_in_bytes"))
    {
        failure.message = format!("{error} (current usage: {} bytes)", used.trim());
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;

    #[test]
    fn apply_tries_what_was_refused_for_its_order_again_after_the_others() {
        let recording = Recording::default();
        recording.refuse_once("cpu.cfs_period_us", libc::EINVAL);
        let writes = [
            Write::new("cpu.period", "cpu.cfs_period_us", 1),
            Write::new("cpu.quota", "cpu.cfs_quota_us", 2),
        ];
        apply(&recording, Path::new("/c"), &writes).expect("applied");
        assert_eq!(
            recording.lines(),
            ["/c/cpu.cfs_quota_us=2", "/c/cpu.cfs_period_us=1"]
        );
    }

    #[test]
    fn apply_names_the_field_of_a_file_that_is_not_there_and_skips_what_needs_none() {
        let recording = Recording {
            missing: vec!["a", "b"],
            ..Recording::default()
        };
        let dir = Path::new("/c");
        let refused = apply(&recording, dir, &[Write::new("cpu.burst", "a", 5)])
            .expect_err("a limit that cannot be kept");
        assert!(
            refused.to_string().contains("linux.resources.cpu.burst"),
            "{refused}"
        );
        apply(
            &recording,
            dir,
            &[Write::new("pids.limit", "a", "max").skip_if(true)],
        )
        .expect("no limit is kept without a file");
        apply(&recording, dir, &[Write::new("x", "a", 1).or("c", 2)]).expect("the other name");
        assert_eq!(recording.lines(), ["/c/c=2"]);
    }
}
