//! Links between hosts.

use super::error::{fail, JsError};
use crate::link::{Event, Identity, LinkError, Listener, Span};
use napi::bindgen_prelude::{BufferSlice, FnArgs, Function};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi_derive::napi;
use std::sync::Arc;
use std::time::Duration;

#[napi(object)]
pub struct JsLinkOptions {
    /// Descriptor of a connected socket.
    pub fd: i32,
    /// It was connected to.
    pub server: bool,
    pub certificate: String,
    pub key: String,
    pub handshake_ms: u32,
}

/// What JavaScript is called with: which event, how many bytes, text.
type Told = FnArgs<(u32, u32, String)>;

#[napi]
pub struct Link(crate::link::Link);

#[napi]
impl Link {
    /// The socket stays the caller's, to be closed at once.
    #[napi(constructor)]
    pub fn new(options: JsLinkOptions, on_event: Function<'_, Told, ()>) -> Result<Self, JsError> {
        let call = on_event.build_threadsafe_function().build_callback(|ctx| Ok(ctx.value));
        let call = call.map_err(|e| fail("EINVAL", e))?;
        let listener: Arc<Listener> = Arc::new(move |event| {
            // Refused only when JavaScript has ended.
            call.call(told(event), ThreadsafeFunctionCallMode::NonBlocking);
        });
        let JsLinkOptions { fd, server, certificate, key, handshake_ms } = options;
        let identity = Identity { certificate, key, server };
        let longest = Duration::from_millis(u64::from(handshake_ms));
        crate::link::Link::start(fd, identity, longest, listener).map(Self).map_err(refused)
    }

    /// `memory` is kept, and left alone, until it is answered for or all is closed.
    #[napi]
    pub fn read(&self, memory: BufferSlice<'_>) {
        self.0.read(span(&memory));
    }

    /// The same for `pieces`. True: they are with the kernel already.
    #[napi]
    pub fn write(&self, pieces: Vec<BufferSlice<'_>>, end: bool) -> Result<bool, JsError> {
        self.0.write(pieces.iter().map(span).collect(), end).map_err(refused)
    }

    #[napi]
    pub fn close(&self) {
        self.0.close();
    }

    /// After `Closed`: the garbage collector may come much later.
    #[napi]
    pub fn join(&self) {
        self.0.join();
    }
}

fn span(memory: &BufferSlice<'_>) -> Span {
    // SAFETY: src/replication/link.ts keeps it; when JavaScript ends, `Link` is dropped before its memory
    // is, and waits for its threads.
    unsafe { Span::new(memory.as_ptr().cast_mut(), memory.len()) }
}

fn refused(error: LinkError) -> JsError {
    fail(error.code, error.message)
}

/// The numbers are those of src/lib/native-link.ts.
fn told(event: Event) -> Told {
    let (number, bytes, text) = match event {
        Event::Secured(fingerprint) => (0, 0, fingerprint),
        Event::Read(bytes) => (1, bytes as u32, String::new()),
        Event::Written => (2, 0, String::new()),
        Event::Ended => (3, 0, String::new()),
        Event::Failed(error) => (4, 0, error.message),
        Event::Closed => (5, 0, String::new()),
    };
    (number, bytes, text).into()
}
