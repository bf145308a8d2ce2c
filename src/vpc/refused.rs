//! Values that the disk has refused, in the memory of an agent.

/// A value of a state file that the disk has refused.
///
/// The value counts until another process writes the file: then the file is newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<T> {
    on_disk: Option<T>,
    value: T,
}

impl<T: Clone + PartialEq> Refused<T> {
    /// A refused value, and the content of the file at that time.
    pub fn new(value: T, on_disk: Option<T>) -> Refused<T> {
        Refused { on_disk, value }
    }

    /// The content of the file at the time of the value.
    pub fn on_disk(&self) -> Option<&T> {
        self.on_disk.as_ref()
    }

    /// The newest value: the refused one, or the content of a file written since.
    pub fn newest(refused: Option<&Refused<T>>, on_disk: Option<T>) -> Option<T> {
        match refused {
            Some(refused) if on_disk.is_none() || on_disk == refused.on_disk => {
                Some(refused.value.clone())
            }
            _ => on_disk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_value_counts_until_another_process_writes_the_file() {
        let refused = Refused::new(2, Some(1));
        assert_eq!(Refused::newest(Some(&refused), Some(1)), Some(2));
        // The directory is gone.
        assert_eq!(Refused::newest(Some(&refused), None), Some(2));
        assert_eq!(Refused::newest(Some(&refused), Some(3)), Some(3));
        assert_eq!(Refused::newest(None, Some(1)), Some(1));
        assert_eq!(Refused::<i32>::newest(None, None), None);
    }
}
