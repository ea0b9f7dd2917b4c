//! Concurrent load with a log of acknowledgements, verifiable after a crash.
