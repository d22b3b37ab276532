package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Unfinished opens streams over one connection and sends a message of so many bytes
// on each, but for the last. It returns how many bytes of them were taken, and why no
// more were; no error means that all were.
func Unfinished(to, from, method string, streams, size int) (sent int, err error) {
	conn, err := From(from).Dial("tcp", to)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0, err
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		return 0, err
	}
	const window, frame = 65_535, 16 << 10 // HTTP/2's own until others are given
	whole, left := window, make(map[uint32]int)
	windows := make(map[uint32]int)
	for i := range streams {
		id := uint32(2*i + 1)
		left[id], windows[id] = size-1, window
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header(to, method), EndHeaders: true}); err != nil {
			return 0, err
		}
		prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(size)) // not compressed, and how long
		if err := f.WriteData(id, false, prefix); err != nil {
			return 0, err
		}
		whole, windows[id] = whole-len(prefix), windows[id]-len(prefix)
	}
	filler := bytes.Repeat([]byte{1<<3 | 2, 0}, frame/2)
	for len(left) > 0 {
		for id := range left {
			for n := min(frame, left[id], windows[id], whole); n > 0; n = min(frame, left[id], windows[id], whole) {
				if err := f.WriteData(id, false, filler[:n]); err != nil {
					return sent, err
				}
				sent, whole, left[id], windows[id] = sent+n, whole-n, left[id]-n, windows[id]-n
			}
			if left[id] == 0 {
				delete(left, id)
			}
		}
		if len(left) == 0 {
			break
		}
		got, err := f.ReadFrame()
		if err != nil {
			return sent, err
		}
		switch got := got.(type) {
		case *http2.WindowUpdateFrame:
			if got.StreamID == 0 {
				whole += int(got.Increment)
			} else {
				windows[got.StreamID] += int(got.Increment)
			}
		case *http2.SettingsFrame:
			if !got.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !got.IsAck() {
				err = f.WritePing(true, got.Data)
			}
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the connection ends: %s", got.DebugData())
		case *http2.MetaHeadersFrame:
			err = fmt.Errorf("stream %d ends: %v", got.StreamID, got.Fields)
		}
		if err != nil {
			return sent, err
		}
	}
	// A ping that is answered says that all was taken.
	if err := f.WritePing(false, [8]byte{1}); err != nil {
		return sent, err
	}
	for {
		got, err := f.ReadFrame()
		if err != nil {
			return sent, err
		}
		if p, ok := got.(*http2.PingFrame); ok && p.IsAck() && p.Data == [8]byte{1} {
			return sent, nil
		}
	}
}

func header(authority, method string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", method},
		{":authority", authority},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}) // a buffer takes all
	}
	return b.Bytes()
}
