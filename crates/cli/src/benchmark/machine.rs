//! What the system says of processors and memory; where it says nothing, numbers are 0 and lists are empty.

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use rustix::time::{ClockId, clock_gettime};

    /// Keeps this process, and the threads it will start, to so many of the processors it may use; returns them.
    pub(in super::super) fn set_aside(count: usize) -> Vec<usize> {
        let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
        let processors: Vec<usize> =
            (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(count).collect();
        let mut chosen = CpuSet::new();
        processors.iter().for_each(|cpu| chosen.set(*cpu));
        // Without the right to do so, timing goes on where the system puts it.
        let _ = sched_setaffinity(None, &chosen);
        processors
    }

    /// The largest amount of memory that this process had so far, in MiB.
    pub(in super::super) fn peak_memory_mb() -> f64 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }

    /// Seconds for which these processors have not been idle since the machine started, whoever used them.
    pub(in super::super) fn busy_seconds(processors: &[usize]) -> f64 {
        let statistics = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: f64 = statistics.lines().filter_map(|line| busy_ticks(line, processors)).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// The ticks of a line `cpu3 user nice system idle iowait irq softirq steal ...` but for idle and iowait.
    fn busy_ticks(line: &str, processors: &[usize]) -> Option<f64> {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        let cpu: usize = words.next()?.parse().ok()?;
        let ticks: Vec<f64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        let idle = ticks.iter().skip(3).take(2).sum::<f64>();
        processors.contains(&cpu).then(|| ticks.iter().sum::<f64>() - idle)
    }

    /// Seconds of processor time that this process has used, all threads together.
    pub(in super::super) fn own_seconds() -> f64 {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn idle_time_is_not_busy() {
            let line = "cpu1 10 1 5 100 50 2 3 4 0 0";
            assert_eq!(busy_ticks(line, &[1]), Some(25.0));
            assert_eq!(busy_ticks(line, &[0]), None);
            assert_eq!(busy_ticks("cpu  10 1 5 100 50 2 3 4 0 0", &[0, 1]), None);
        }

        #[test]
        fn the_system_answers() {
            assert!(peak_memory_mb() > 1.0);
            assert!(own_seconds() > 0.0);
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{busy_seconds, own_seconds, peak_memory_mb, set_aside};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    pub(in super::super) fn set_aside(_count: usize) -> Vec<usize> {
        Vec::new()
    }

    pub(in super::super) fn peak_memory_mb() -> f64 {
        0.0
    }

    pub(in super::super) fn busy_seconds(_processors: &[usize]) -> f64 {
        0.0
    }

    pub(in super::super) fn own_seconds() -> f64 {
        0.0
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{busy_seconds, own_seconds, peak_memory_mb, set_aside};
