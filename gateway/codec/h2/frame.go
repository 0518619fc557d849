// Package h2 is HTTP/2 below the message: frames, header compression, flow control and the shared writing of a connection (RFC 9113,
// RFC 7541, RFC 9218). The server and the client of the gateway are built on it.
//
// Bytes of a connection go in and frames come out, checked for what can be checked without knowing the streams; frames go in and come
// out as few large writes. The package knows neither sockets nor streams' states, and nothing of what a message is for.
package h2

import "fmt"

// Type is a frame's type.
type Type uint8

// The frame types of RFC 9113 6 and RFC 9218 7.1.
const (
	TypeData           Type = 0x0
	TypeHeaders        Type = 0x1
	TypePriority       Type = 0x2
	TypeReset          Type = 0x3
	TypeSettings       Type = 0x4
	TypePushPromise    Type = 0x5
	TypePing           Type = 0x6
	TypeGoAway         Type = 0x7
	TypeWindowUpdate   Type = 0x8
	TypeContinuation   Type = 0x9
	TypePriorityUpdate Type = 0x10
)

// Flags are a frame's flags.
type Flags uint8

// The flags that frames have; FlagAck and FlagEndStream are one bit of different types.
const (
	FlagEndStream  Flags = 0x1
	FlagAck        Flags = 0x1
	FlagEndHeaders Flags = 0x4
	FlagPadded     Flags = 0x8
	FlagPriority   Flags = 0x20
)

const (
	// FrameHeader is the length of what stands before each payload.
	FrameHeader = 9
	// MinFrameSize is the largest payload that every peer takes (RFC 9113 6.5.2), and what the gateway itself asks for.
	MinFrameSize = 16 << 10
	// MaxFrameSize is the largest payload that can be agreed on.
	MaxFrameSize = 1<<24 - 1
	// InitialWindow is every window's size until SETTINGS or WINDOW_UPDATE say otherwise (RFC 9113 6.9.2).
	InitialWindow = 65535
	// MaxWindow is what a window may never exceed (RFC 9113 6.9.1).
	MaxWindow = 1<<31 - 1
	// MaxStream is the largest stream identifier.
	MaxStream = 1<<31 - 1
	// Preface is what a client sends first (RFC 9113 3.4).
	Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// Code is an error code of RST_STREAM and GOAWAY (RFC 9113 7).
type Code uint32

// The error codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

// String returns the code's name in RFC 9113 7.
func (c Code) String() string {
	names := [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
		"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
		"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}
	if int64(c) < int64(len(names)) {
		return names[c]
	}
	return fmt.Sprintf("code %#x", uint32(c))
}

// ConnError is a breach of the protocol that ends the connection, by GOAWAY with this code.
type ConnError struct {
	Code   Code
	Reason string
}

// Error names the code and the reason.
func (e *ConnError) Error() string { return "http/2 connection: " + e.Code.String() + ": " + e.Reason }

// StreamError is a breach of the protocol that ends one stream, by RST_STREAM with this code. The connection goes on.
type StreamError struct {
	Stream uint32
	Code   Code
	Reason string
}

// Error names the stream, the code and the reason.
func (e *StreamError) Error() string {
	return fmt.Sprintf("http/2 stream %d: %s: %s", e.Stream, e.Code, e.Reason)
}

// Frame is a frame as it was received, or a piece of a DATA frame.
type Frame struct {
	Type   Type
	Flags  Flags
	Stream uint32
	// Payload is without padding and, of HEADERS, without the priority fields: the whole header block, with what CONTINUATION frames
	// brought. It is a view until the Reader is used again.
	Payload []byte
	// Size is how many bytes of a DATA frame count against the windows: payload and padding (RFC 9113 6.1).
	Size int
	// More says that this is not the last piece of a DATA frame: pieces are handed out as they come. Only the last one can have
	// FlagEndStream.
	More bool
	// Frames is how many frames this is: 1, HEADERS with their CONTINUATION frames more, a DATA frame's pieces but the first 0.
	Frames int
	// Code is not 0 when the frame is an error of its stream alone (RFC 9113 5.4.2), Reason says why. The block of HEADERS must be decoded
	// nevertheless.
	Code   Code
	Reason string
}

// EndStream reports whether the sender's side of the stream ends with this frame.
func (f *Frame) EndStream() bool {
	return f.Flags&FlagEndStream != 0 && (f.Type == TypeData || f.Type == TypeHeaders)
}
