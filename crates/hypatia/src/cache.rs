//! The executables of a function, by the arguments they are for: found in constant time, and no more of them than a number
//! of bytes, the least recently used given up first.

use std::collections::HashMap;
use std::fmt;

use smallvec::SmallVec;

/// Entries of one hash.
type Bucket<K, V> = SmallVec<[Box<Entry<K, V>>; 1]>;

/// Values by keys that are looked up by their hash. The value in use lies apart from the others, where finding it again costs
/// one comparison.
pub(crate) struct Cache<K, V> {
    recent: Option<Box<Entry<K, V>>>,
    others: HashMap<u64, Bucket<K, V>>,
    limit: usize,
    /// Counts the changes from one value to another.
    clock: u64,
    counts: Counts,
}

struct Entry<K, V> {
    key: K,
    hash: u64,
    value: V,
    bytes: usize,
    /// When it was last put aside.
    used: u64,
}

/// What a function has compiled for the shapes that it has met.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Sets of shapes that the function was compiled for, again after they were given up included.
    pub compiled: usize,
    /// Executables that are kept.
    pub cached: usize,
    /// Executables that were given up for their memory.
    pub evicted: usize,
    /// Bytes that the kept ones hold, about.
    pub bytes: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { compiled, cached, evicted, bytes } = self;
        let megabytes = *bytes as f64 / 1e6;
        write!(f, "executables: {compiled} compiled, {cached} kept ({megabytes:.1} MB), {evicted} given up")
    }
}

impl<K, V> Cache<K, V> {
    /// A cache of about that many bytes besides the value in use.
    pub(crate) fn new(limit: usize) -> Cache<K, V> {
        Cache { recent: None, others: HashMap::new(), limit, clock: 0, counts: Counts::default() }
    }

    /// The value in use.
    pub(crate) fn recent(&self) -> Option<&V> {
        self.recent.as_ref().map(|entry| &entry.value)
    }

    /// The same, to use.
    pub(crate) fn recent_mut(&mut self) -> Option<&mut V> {
        self.recent.as_mut().map(|entry| &mut entry.value)
    }

    /// What was compiled and is kept.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the value in use is that of a key.
    pub(crate) fn is_recent(&self, fits: impl Fn(&K) -> bool) -> bool {
        self.recent.as_ref().is_some_and(|entry| fits(&entry.key))
    }

    /// Makes the value of a key the one in use, if it is kept; gives back the one that was.
    pub(crate) fn switch(&mut self, hash: u64, fits: impl Fn(&K) -> bool) -> Option<Option<&mut V>> {
        let entries = self.others.get_mut(&hash)?;
        let position = entries.iter().position(|entry| fits(&entry.key))?;
        let entry = entries.swap_remove(position);
        if entries.is_empty() {
            self.others.remove(&hash);
        }
        Some(self.put_in_front(entry))
    }

    /// Adds the value of a key, which is then the one in use; gives back the one that was, if it is still kept.
    pub(crate) fn insert(&mut self, key: K, hash: u64, value: V, bytes: usize) -> Option<&mut V> {
        self.counts.compiled += 1;
        self.counts.cached += 1;
        self.counts.bytes += bytes;
        self.put_in_front(Box::new(Entry { key, hash, value, bytes, used: 0 }))
    }

    /// Gives up values until the others fit in the limit.
    pub(crate) fn shrink(&mut self) {
        let in_use = self.recent.as_ref().map_or(0, |entry| entry.bytes);
        while self.counts.bytes - in_use > self.limit {
            let Some(oldest) = self.others.values().flatten().map(|entry| entry.used).min() else { break };
            self.others.retain(|_, entries| {
                entries.retain(|entry| {
                    let stays = entry.used != oldest;
                    if !stays {
                        self.counts.bytes -= entry.bytes;
                        self.counts.cached -= 1;
                        self.counts.evicted += 1;
                    }
                    stays
                });
                !entries.is_empty()
            });
        }
    }

    fn put_in_front(&mut self, entry: Box<Entry<K, V>>) -> Option<&mut V> {
        let mut before = self.recent.replace(entry)?;
        self.clock += 1;
        before.used = self.clock;
        let entries = self.others.entry(before.hash).or_default();
        entries.push(before);
        entries.last_mut().map(|entry| &mut entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(cache: &mut Cache<u32, u32>, key: u32) -> bool {
        cache.is_recent(|k| *k == key) || cache.switch(u64::from(key % 3), |k| *k == key).is_some()
    }

    #[test]
    fn the_least_recently_used_is_given_up_and_never_the_one_in_use() {
        let mut cache = Cache::new(20);
        for key in 0..4u32 {
            cache.insert(key, u64::from(key % 3), key, 10);
            cache.shrink();
        }
        // Besides the one in use there is room for two.
        let counts = Counts { compiled: 4, cached: 3, evicted: 1, bytes: 30 };
        assert_eq!(cache.counts(), counts);
        assert!(!switch(&mut cache, 0) && switch(&mut cache, 1) && cache.recent() == Some(&1));
        cache.insert(4, 1, 4, 10);
        cache.shrink();
        assert!(!switch(&mut cache, 2) && switch(&mut cache, 3) && switch(&mut cache, 1));
        assert!(switch(&mut cache, 4) && switch(&mut cache, 4));
        let huge = 5;
        cache.insert(huge, 2, huge, 1000);
        cache.shrink();
        assert_eq!(cache.counts().cached, 3);
        cache.insert(6, 0, 6, 10);
        cache.shrink();
        assert!(!switch(&mut cache, huge));
        assert_eq!(cache.recent(), Some(&6));
    }

    /// Keys of one hash are told apart.
    #[test]
    fn every_key_has_its_value() {
        let mut cache = Cache::new(usize::MAX);
        for key in 0..30u32 {
            cache.insert(key, u64::from(key % 3), 2 * key, 1);
        }
        for key in [7, 3, 29, 29, 10, 0] {
            assert!(switch(&mut cache, key));
            assert_eq!(cache.recent(), Some(&(2 * key)));
        }
        assert_eq!(cache.counts().cached, 30);
    }
}
