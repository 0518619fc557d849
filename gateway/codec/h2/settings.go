package h2

import "encoding/binary"

// SettingID numbers a setting.
type SettingID uint16

// The settings of RFC 9113 6.5.2, RFC 8441 3 and RFC 9218 2.1.
const (
	SettingHeaderTableSize      SettingID = 0x1
	SettingEnablePush           SettingID = 0x2
	SettingMaxConcurrentStreams SettingID = 0x3
	SettingInitialWindowSize    SettingID = 0x4
	SettingMaxFrameSize         SettingID = 0x5
	SettingMaxHeaderListSize    SettingID = 0x6
	SettingEnableConnect        SettingID = 0x8
	SettingNoPriorities         SettingID = 0x9
)

// Setting is one entry of a SETTINGS frame.
type Setting struct {
	ID    SettingID
	Value uint32
}

// Settings are what the peer asked for. A value that it left out is the protocol's initial one; see Init.
type Settings struct {
	// HeaderTableSize bounds the table of who compresses for the peer. Initially 4096.
	HeaderTableSize uint32
	// MaxConcurrentStreams bounds the streams opened to the peer. Initially MaxStream: no bound.
	MaxConcurrentStreams uint32
	// InitialWindowSize is the window of each new stream to the peer, in bytes. Initially InitialWindow.
	InitialWindowSize uint32
	// MaxFrameSize is the largest payload that the peer takes. Initially MinFrameSize.
	MaxFrameSize uint32
	// MaxHeaderListSize is advice, in bytes as RFC 9113 6.5.2 counts them. Initially MaxStream: no bound.
	MaxHeaderListSize uint32
	// ExtendedConnect says that the peer takes extended CONNECT (RFC 8441).
	ExtendedConnect bool
	// NoPriorities says that the peer ignores the priorities of RFC 7540.
	NoPriorities bool

	received bool
}

// Init sets the protocol's initial values.
func (s *Settings) Init() {
	*s = Settings{
		HeaderTableSize:      4096,
		MaxConcurrentStreams: MaxStream,
		InitialWindowSize:    InitialWindow,
		MaxFrameSize:         MinFrameSize,
		MaxHeaderListSize:    MaxStream,
	}
}

// Apply takes over the payload of a SETTINGS frame that is no acknowledgement. server says that the peer is a server. The error is a
// *ConnError; s is not to be used after it.
func (s *Settings) Apply(payload []byte, server bool) error {
	for ; len(payload) >= 6; payload = payload[6:] {
		id, value := SettingID(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:])
		switch id {
		case SettingHeaderTableSize:
			s.HeaderTableSize = value
		case SettingEnablePush:
			if value > 1 || server && value == 1 {
				return &ConnError{ProtocolError, "SETTINGS_ENABLE_PUSH has a value that is not allowed"}
			}
		case SettingMaxConcurrentStreams:
			s.MaxConcurrentStreams = value
		case SettingInitialWindowSize:
			if value > MaxWindow {
				return &ConnError{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is over 2^31-1"}
			}
			s.InitialWindowSize = value
		case SettingMaxFrameSize:
			if value < MinFrameSize || value > MaxFrameSize {
				return &ConnError{ProtocolError, "SETTINGS_MAX_FRAME_SIZE is not between 2^14 and 2^24-1"}
			}
			s.MaxFrameSize = value
		case SettingMaxHeaderListSize:
			s.MaxHeaderListSize = value
		case SettingEnableConnect:
			if value > 1 || s.ExtendedConnect && value == 0 {
				return &ConnError{ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL has a value that is not allowed"}
			}
			s.ExtendedConnect = value == 1
		case SettingNoPriorities:
			if value > 1 || s.received && (value == 1) != s.NoPriorities {
				return &ConnError{ProtocolError, "SETTINGS_NO_RFC7540_PRIORITIES has a value that is not allowed"}
			}
			s.NoPriorities = value == 1
		}
	}
	s.received = true
	return nil
}
