//! What people call a device.

use std::fmt;

/// A device's name and notes: for people, never for identity.
///
/// It costs a device nothing when absent and one pointer when present. The name travels with the words of a
/// [`Fault`](crate::Fault), so that a watcher can say *who* panicked.
///
/// ```
/// use backplane::{Device, Label};
/// let device = Device::labelled(Label::new("worker").note("partition", "7"));
/// let label = device.line().label().expect("it is alive");
/// assert_eq!(label.name(), "worker");
/// assert_eq!(label.get("partition"), Some("7"));
/// assert_eq!(label.to_string(), "worker{partition=7}");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Label {
    name: Box<str>,
    notes: Vec<(Box<str>, Box<str>)>,
}

impl Label {
    /// A label with a name and no notes yet.
    ///
    /// ```
    /// use backplane::Label;
    /// assert_eq!(Label::new("worker").to_string(), "worker");
    /// ```
    pub fn new(name: impl Into<Box<str>>) -> Label {
        Label { name: name.into(), notes: Vec::new() }
    }

    /// Adds a note: a key and its value. A key noted twice stands twice; [`get`](Label::get) finds the first.
    ///
    /// ```
    /// use backplane::Label;
    /// assert_eq!(Label::new("worker").note("shard", "3").to_string(), "worker{shard=3}");
    /// ```
    #[must_use]
    pub fn note(mut self, key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Label {
        self.notes.push((key.into(), value.into()));
        self
    }

    /// The name.
    ///
    /// ```
    /// use backplane::Label;
    /// assert_eq!(Label::new("worker").name(), "worker");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of the first note with this key.
    ///
    /// ```
    /// use backplane::Label;
    /// let label = Label::new("worker").note("shard", "3");
    /// assert_eq!((label.get("shard"), label.get("node")), (Some("3"), None));
    /// ```
    pub fn get(&self, key: &str) -> Option<&str> {
        self.notes().find_map(|(k, value)| (k == key).then_some(value))
    }

    /// All notes, in the order in which they were made.
    ///
    /// ```
    /// use backplane::Label;
    /// let label = Label::new("worker").note("shard", "3").note("node", "0");
    /// assert_eq!(label.notes().collect::<Vec<_>>(), [("shard", "3"), ("node", "0")]);
    /// ```
    pub fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.notes.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl From<&str> for Label {
    fn from(name: &str) -> Label {
        Label::new(name)
    }
}

impl From<String> for Label {
    fn from(name: String) -> Label {
        Label::new(name)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.notes.is_empty() {
            for (i, (key, value)) in self.notes().enumerate() {
                write!(f, "{}{key}={value}", if i == 0 { '{' } else { ',' })?;
            }
            f.write_str("}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({self})")
    }
}
