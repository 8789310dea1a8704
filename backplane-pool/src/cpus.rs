//! CPUs by number, and the two ways in which Linux writes them down.

use std::{
    collections::{BTreeSet, btree_set},
    fmt,
    ops::RangeInclusive,
    str::FromStr,
};

/// No kernel is built for as many: a larger number is a typo, or an attack on our memory.
const CPUS: usize = 1 << 16;

/// CPUs, by the numbers that the kernel gives them.
///
/// It is written as Linux does, and as `taskset -c` does: numbers and ranges.
///
/// ```
/// use backplane_pool::CpuSet;
/// let cpus: CpuSet = "0-3,8".parse()?;
/// assert_eq!(cpus, CpuSet::from_iter([8, 0, 1, 2, 3]));
/// assert_eq!(cpus.to_string(), "0-3,8");
/// assert!(cpus.contains(8) && !cpus.contains(4));
/// # Ok::<(), backplane_pool::ParseCpuSetError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    /// None.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// let mut cpus = CpuSet::new();
    /// assert!(cpus.is_empty());
    /// cpus.extend(4..8);
    /// assert_eq!(cpus.to_string(), "4-7");
    /// ```
    pub fn new() -> CpuSet {
        CpuSet::default()
    }

    /// In ascending order.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// let cpus = CpuSet::from_iter([5, 1]);
    /// assert_eq!(cpus.iter().collect::<Vec<_>>(), [1, 5]);
    /// ```
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + Clone + '_ {
        self.0.iter().copied()
    }

    /// How many.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// assert_eq!(CpuSet::from_iter(0..96).len(), 96);
    /// ```
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// assert!(CpuSet::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is among them.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// let cpus = CpuSet::from_iter(4..8);
    /// assert!(cpus.contains(7));
    /// assert!(!cpus.contains(8));
    /// ```
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// Adds one; says whether it is new.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// let mut cpus = CpuSet::new();
    /// assert!(cpus.insert(3));
    /// assert!(!cpus.insert(3));
    /// ```
    pub fn insert(&mut self, cpu: usize) -> bool {
        self.0.insert(cpu)
    }

    /// Those that are in both.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// let (left, right) = (CpuSet::from_iter(0..4), CpuSet::from_iter(2..8));
    /// assert_eq!(left.intersection(&right), CpuSet::from_iter(2..4));
    /// ```
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        self.0.intersection(&other.0).copied().collect()
    }

    /// Takes away, and returns, those that are in `wanted`.
    pub(crate) fn take(&mut self, wanted: &CpuSet) -> CpuSet {
        let taken = self.intersection(wanted);
        self.0.retain(|cpu| !taken.contains(*cpu));
        taken
    }

    /// What a `cpulist` says: `0-3,8`. Nothing at all is no CPU; what is not a list is `None`.
    pub(crate) fn from_list(text: &[u8]) -> Option<CpuSet> {
        let text = text.trim_ascii();
        let mut cpus = CpuSet::new();
        if text.is_empty() {
            return Some(cpus);
        }
        for part in text.split(|byte| *byte == b',') {
            cpus.extend(range(part.trim_ascii())?);
        }
        Some(cpus)
    }

    /// What a `cpumap` says: `0000000f,ffffffff`, words of 32 bits in hexadecimal, the highest CPUs first.
    pub(crate) fn from_map(text: &[u8]) -> Option<CpuSet> {
        let mut digits = Vec::new();
        for (index, word) in text.trim_ascii().split(|byte| *byte == b',').enumerate() {
            // Only the first may leave zeros out; or, without a comma, may say it all.
            if word.is_empty() || (index > 0 && word.len() != 8) {
                return None;
            }
            digits.extend_from_slice(word);
        }
        let mut cpus = CpuSet::new();
        for (index, digit) in digits.iter().rev().enumerate() {
            let bits = char::from(*digit).to_digit(16)?;
            for bit in (0..4).filter(|bit| bits >> bit & 1 == 1) {
                let cpu = index * 4 + bit;
                if cpu >= CPUS {
                    return None;
                }
                cpus.insert(cpu);
            }
        }
        Some(cpus)
    }
}

/// `3` or `0-3`.
fn range(part: &[u8]) -> Option<RangeInclusive<usize>> {
    let mut ends = part.splitn(2, |byte| *byte == b'-').map(number);
    let first = ends.next()??;
    let last = ends.next().unwrap_or(Some(first))?;
    (first <= last && last < CPUS).then_some(first..=last)
}

/// Digits, and nothing else.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> CpuSet {
        CpuSet(cpus.into_iter().collect())
    }
}

impl Extend<usize> for CpuSet {
    fn extend<I: IntoIterator<Item = usize>>(&mut self, cpus: I) {
        self.0.extend(cpus);
    }
}

impl IntoIterator for CpuSet {
    type Item = usize;
    type IntoIter = btree_set::IntoIter<usize>;

    fn into_iter(self) -> btree_set::IntoIter<usize> {
        self.0.into_iter()
    }
}

impl FromStr for CpuSet {
    type Err = ParseCpuSetError;

    fn from_str(text: &str) -> Result<CpuSet, ParseCpuSetError> {
        CpuSet::from_list(text.as_bytes()).ok_or_else(|| ParseCpuSetError { text: text.to_owned() })
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| next.checked_sub(1) == Some(last)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

/// What was said is no list of CPUs, or names one that no kernel has (65,536 and above).
///
/// ```
/// use backplane_pool::CpuSet;
/// let error = "3-0".parse::<CpuSet>().unwrap_err();
/// assert_eq!(error.to_string(), "no list of CPUs: 3-0");
/// assert_eq!(error.text(), "3-0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseCpuSetError {
    text: String,
}

impl ParseCpuSetError {
    /// What was said.
    ///
    /// ```
    /// # use backplane_pool::CpuSet;
    /// let error = "0-3;8".parse::<CpuSet>().unwrap_err();
    /// assert_eq!(error.text(), "0-3;8");
    /// ```
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ParseCpuSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no list of CPUs: {}", self.text)
    }
}

impl std::error::Error for ParseCpuSetError {}
