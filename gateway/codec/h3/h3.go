// Package h3 is HTTP/3 above QUIC's streams: the frames of a request stream, the control stream and its SETTINGS, and QPACK (RFC 9114,
// RFC 9204, RFC 9218, RFC 9220).
//
// The bytes of a stream go in by an io.Reader and a request's head, body and trailers come out, or what the streams of a connection have to
// say; a response's head goes in and the bytes of a HEADERS frame come out. The package knows neither QUIC nor the states of
// connections, and nothing of what a message is for. It uses no dynamic table in either direction, so that no stream waits for
// another and a field section means the same whenever it is read.
package h3

import (
	"fmt"
	"math/bits"
)

// Code is an error code of HTTP/3 or QPACK (RFC 9114 8.1, RFC 9204 6), for streams and connections alike.
type Code uint64

// The error codes.
const (
	NoError              Code = 0x100
	GeneralProtocolError Code = 0x101
	InternalError        Code = 0x102
	StreamCreationError  Code = 0x103
	ClosedCriticalStream Code = 0x104
	FrameUnexpected      Code = 0x105
	FrameError           Code = 0x106
	ExcessiveLoad        Code = 0x107
	IDError              Code = 0x108
	SettingsError        Code = 0x109
	MissingSettings      Code = 0x10a
	RequestRejected      Code = 0x10b
	RequestCancelled     Code = 0x10c
	RequestIncomplete    Code = 0x10d
	MessageError         Code = 0x10e
	ConnectError         Code = 0x10f
	VersionFallback      Code = 0x110
	DecompressionFailed  Code = 0x200
	EncoderStreamError   Code = 0x201
	DecoderStreamError   Code = 0x202
)

// String returns the code's name in the RFCs.
func (c Code) String() string {
	http := [...]string{"H3_NO_ERROR", "H3_GENERAL_PROTOCOL_ERROR", "H3_INTERNAL_ERROR", "H3_STREAM_CREATION_ERROR",
		"H3_CLOSED_CRITICAL_STREAM", "H3_FRAME_UNEXPECTED", "H3_FRAME_ERROR", "H3_EXCESSIVE_LOAD", "H3_ID_ERROR", "H3_SETTINGS_ERROR",
		"H3_MISSING_SETTINGS", "H3_REQUEST_REJECTED", "H3_REQUEST_CANCELLED", "H3_REQUEST_INCOMPLETE", "H3_MESSAGE_ERROR",
		"H3_CONNECT_ERROR", "H3_VERSION_FALLBACK"}
	qpack := [...]string{"QPACK_DECOMPRESSION_FAILED", "QPACK_ENCODER_STREAM_ERROR", "QPACK_DECODER_STREAM_ERROR"}
	switch {
	case c >= NoError && c-NoError < Code(len(http)):
		return http[c-NoError]
	case c >= DecompressionFailed && c-DecompressionFailed < Code(len(qpack)):
		return qpack[c-DecompressionFailed]
	}
	return fmt.Sprintf("code %#x", uint64(c))
}

// ConnError is a breach of the protocol that ends the connection with this code.
type ConnError struct {
	Code   Code
	Reason string
}

// Error names the code and the reason.
func (e *ConnError) Error() string { return "http/3 connection: " + e.Code.String() + ": " + e.Reason }

// StreamError is a breach of the protocol that ends one stream with this code. The connection goes on.
type StreamError struct {
	Code   Code
	Reason string
}

// Error names the code and the reason.
func (e *StreamError) Error() string { return "http/3 stream: " + e.Code.String() + ": " + e.Reason }

// The stream types of unidirectional streams (RFC 9114 6.2, RFC 9204 4.2).
const (
	StreamControl = 0x00
	StreamPush    = 0x01
	StreamEncoder = 0x02
	StreamDecoder = 0x03
)

// The frame types (RFC 9114 7.2, RFC 9218 7.2).
const (
	typeData              = 0x00
	typeHeaders           = 0x01
	typeCancelPush        = 0x03
	typeSettings          = 0x04
	typePushPromise       = 0x05
	typeGoAway            = 0x07
	typeMaxPushID         = 0x0d
	typePriorityUpdate    = 0xf0700
	typePriorityUpdatePsh = 0xf0701
)

// reserved reports whether a frame type is one that HTTP/2 had and HTTP/3 forbids (RFC 9114 7.2.8).
func reserved(kind uint64) bool { return kind == 0x02 || kind == 0x06 || kind == 0x08 || kind == 0x09 }

// A QUIC variable-length integer (RFC 9000 16) has its length in its first two bits:
//
//	00xxxxxx                             0 to 63
//	01xxxxxx xxxxxxxx                    to 16383
//	10xxxxxx and three bytes             to 2^30-1
//	11xxxxxx and seven bytes             to 2^62-1
//
// An encoding that is longer than it need be is valid.

const (
	// MaxVarint is the largest integer.
	MaxVarint = 1<<62 - 1
	// maxVarintLen is the length of the longest encoding.
	maxVarintLen = 8
)

// AppendVarint appends v, which must not be over MaxVarint.
func AppendVarint(dst []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(dst, byte(v))
	case v < 1<<14:
		return append(dst, byte(v>>8)|0x40, byte(v))
	case v < 1<<30:
		return append(dst, byte(v>>24)|0x80, byte(v>>16), byte(v>>8), byte(v))
	}
	return append(dst, byte(v>>56)|0xc0, byte(v>>48), byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// varintLen returns how many bytes AppendVarint takes for v.
func varintLen(v uint64) int {
	switch n := bits.Len64(v); {
	case n <= 6:
		return 1
	case n <= 14:
		return 2
	case n <= 30:
		return 4
	}
	return 8
}

// Varint reads the integer that b begins with and returns its length, 0 when b does not hold all of it.
func Varint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n
}
