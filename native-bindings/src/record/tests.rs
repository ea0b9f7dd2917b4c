use super::*;

fn header(op: Op) -> Header {
    Header {
        seq: 0,
        clock: 0,
        op,
        flags: FLAG_KILLPRIV,
        uid: 1000,
        gid: 100,
        pid: 4242,
        comm: *b"postgres\0\0\0\0\0\0\0\0",
        oid: Oid { ino: 131, gen: 9 },
        time: Time { sec: -1, nsec: 999_999_999 },
        mode: 0o100_644,
    }
}

#[test]
fn record_round_trip() {
    let mut buf = vec![0xAA; 4096];
    let len = {
        let mut e = Encoder::new(&mut buf, &header(Op::Write));
        e.u64(8192).payload().raw(b"hello");
        e.finish()
    };
    assert_eq!(len, record_len(8, 5));
    seal(&mut buf[..len], 7, 1_700_000_000_000_000_000);
    assert_eq!(crc_of_sealed(&buf[..len]), crc32c::crc32c(&buf[..len]));
    let view = RecordView::parse(&buf).unwrap();
    view.verify().unwrap();
    assert_eq!(view.seq(), 7);
    assert_eq!(view.payload(), b"hello");
    assert!(matches!(view.decode().unwrap(), Fields::Write { offset: 8192 }));
    assert_eq!(view.header().time, Time { sec: -1, nsec: 999_999_999 });
    for i in 8..len {
        let mut bad = buf[..len].to_vec();
        bad[i] ^= 0x10;
        let seen = RecordView::parse(&bad).and_then(|v| v.verify());
        assert!(seen.is_err(), "a flipped bit in byte {i} must be seen");
    }
}

#[test]
fn frame_round_trip_and_damage() {
    let mut frame = vec![0; FRAME_HEADER + 256];
    let len = {
        let mut e = Encoder::new(&mut frame[FRAME_HEADER..], &header(Op::Bind));
        e.oid(Oid { ino: 128, gen: 1 }).name(b"a\xffb");
        e.finish()
    };
    frame.truncate(FRAME_HEADER + len);
    seal(&mut frame[FRAME_HEADER..], 5, 50);
    let h = FrameHeader {
        uuid: [3; 16],
        epoch: 1,
        records: 1,
        first_seq: 5,
        last_seq: 5,
        clock: 50,
        prev_chain: [1; 8],
    };
    let chain = seal_frame(&mut frame, &h);
    let view = FrameView::parse(&frame).unwrap();
    assert_eq!(view.chain, chain);
    assert_eq!(view.header, h);
    assert_eq!(view.records().count(), 1);
    for i in 0..frame.len() {
        let mut bad = frame.clone();
        bad[i] ^= 1;
        assert!(FrameView::parse(&bad).is_err(), "a flipped bit in byte {i} must be seen");
    }
    assert!(matches!(
        FrameView::parse(&frame[..frame.len() - 1]),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn unknown_codes_are_refused() {
    assert_eq!(Op::from_u8(0), None);
    assert_eq!(Op::from_u8(200), None);
    for code in 0..=255u8 {
        if let Some(op) = Op::from_u8(code) {
            assert_eq!(op as u8, code);
        }
    }
}
