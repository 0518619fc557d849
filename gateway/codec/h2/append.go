package h2

import "encoding/binary"

// AppendFrameHeader appends what stands before a payload of n bytes.
func AppendFrameHeader(dst []byte, n int, t Type, flags Flags, stream uint32) []byte {
	return append(dst, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags),
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(dst []byte, settings ...Setting) []byte {
	dst = AppendFrameHeader(dst, 6*len(settings), TypeSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Value)
	}
	return dst
}

// AppendSettingsAck appends the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(dst []byte) []byte { return AppendFrameHeader(dst, 0, TypeSettings, FlagAck, 0) }

// AppendPing appends a PING frame, or the answer to one.
func AppendPing(dst []byte, ack bool, data [8]byte) []byte {
	var flags Flags
	if ack {
		flags = FlagAck
	}
	return append(AppendFrameHeader(dst, len(data), TypePing, flags, 0), data[:]...)
}

// AppendGoAway appends a GOAWAY frame. debug is for who reads the peer's log.
func AppendGoAway(dst []byte, last uint32, code Code, debug string) []byte {
	dst = AppendFrameHeader(dst, 8+len(debug), TypeGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// AppendReset appends a RST_STREAM frame.
func AppendReset(dst []byte, stream uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(AppendFrameHeader(dst, 4, TypeReset, 0, stream), uint32(code))
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame; stream 0 is the connection's window.
func AppendWindowUpdate(dst []byte, stream, increment uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendFrameHeader(dst, 4, TypeWindowUpdate, 0, stream), increment)
}

// AppendData appends a DATA frame; p is at most as long as the peer's frames may be.
func AppendData(dst []byte, stream uint32, p []byte, endStream bool) []byte {
	var flags Flags
	if endStream {
		flags = FlagEndStream
	}
	return append(AppendFrameHeader(dst, len(p), TypeData, flags, stream), p...)
}

// OpenHeaders appends room for the header of a HEADERS frame. The header block is appended behind it; SealHeaders completes the frame.
func OpenHeaders(dst []byte) []byte { return append(dst, make([]byte, FrameHeader)...) }

// SealHeaders completes the HEADERS frame that OpenHeaders began when dst was at bytes long. A block longer than maxFrame, the largest
// payload that the peer takes, goes on in CONTINUATION frames.
func SealHeaders(dst []byte, at int, stream uint32, endStream bool, maxFrame int) []byte {
	var flags Flags
	if endStream {
		flags = FlagEndStream
	}
	n := len(dst) - at - FrameHeader
	if n <= maxFrame {
		AppendFrameHeader(dst[:at], n, TypeHeaders, flags|FlagEndHeaders, stream)
		return dst
	}
	AppendFrameHeader(dst[:at], maxFrame, TypeHeaders, flags, stream)
	return split(dst, at+FrameHeader+maxFrame, stream, maxFrame)
}

// split puts CONTINUATION frames around what of a header block stands from at on. It does so from the end, so that each byte moves once:
//
//	before: HHHHHHHHH aaaa bbbb cc
//	after:  HHHHHHHHH aaaa HHHHHHHHH bbbb HHHHHHHHH cc
func split(dst []byte, at int, stream uint32, maxFrame int) []byte {
	rest := len(dst) - at
	frames := (rest + maxFrame - 1) / maxFrame
	dst = append(dst, make([]byte, frames*FrameHeader)...)
	for i := frames - 1; i >= 0; i-- {
		n := min(maxFrame, rest-i*maxFrame)
		from, to := at+i*maxFrame, at+i*maxFrame+i*FrameHeader
		copy(dst[to+FrameHeader:], dst[from:from+n])
		var flags Flags
		if i == frames-1 {
			flags = FlagEndHeaders
		}
		AppendFrameHeader(dst[:to], n, TypeContinuation, flags, stream)
	}
	return dst
}
