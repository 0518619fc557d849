package h3

// The settings that the gateway knows (RFC 9114 7.2.4.1, RFC 9204 5, RFC 9220 3, RFC 9297 2.1.1).
const (
	settingTableCapacity   = 0x01
	settingMaxFieldSection = 0x06
	settingBlockedStreams  = 0x07
	settingEnableConnect   = 0x08
	settingDatagram        = 0x33
)

// Settings are what one side of a connection asks of the other.
type Settings struct {
	// MaxFieldSection is the largest field section that is taken, in bytes as section.Limits counts them; -1 when it was not said.
	MaxFieldSection int64
	// EnableConnect allows extended CONNECT (RFC 9220).
	EnableConnect bool
}

// AppendControl appends what a control stream begins with: its type and a SETTINGS frame. The QPACK settings are left at their defaults:
// no dynamic table, no blocked streams.
func AppendControl(dst []byte, s Settings) []byte {
	size := 0
	if s.MaxFieldSection >= 0 {
		size += 1 + varintLen(uint64(s.MaxFieldSection))
	}
	if s.EnableConnect {
		size += 2
	}
	dst = AppendVarint(append(dst, StreamControl, typeSettings), uint64(size))
	if s.MaxFieldSection >= 0 {
		dst = AppendVarint(append(dst, settingMaxFieldSection), uint64(s.MaxFieldSection))
	}
	if s.EnableConnect {
		dst = append(dst, settingEnableConnect, 1)
	}
	return dst
}

// AppendGoAway appends a GOAWAY frame: requests on streams from this identifier on are not served (RFC 9114 5.2).
func AppendGoAway(dst []byte, stream uint64) []byte {
	dst = append(dst, typeGoAway, byte(varintLen(stream)))
	return AppendVarint(dst, stream)
}

const (
	// maxSettings bounds a SETTINGS frame, in bytes.
	maxSettings = 1 << 10
	// maxSettingsCount bounds the settings in it.
	maxSettingsCount = 64
)

// parseSettings reads the payload of a SETTINGS frame. Its errors are connection errors.
func parseSettings(payload []byte) (Settings, error) {
	s := Settings{MaxFieldSection: -1}
	var seen [maxSettingsCount]uint64
	for count := 0; len(payload) > 0; count++ {
		id, n := Varint(payload)
		value, m := Varint(payload[n:])
		if n == 0 || m == 0 {
			return s, &ConnError{FrameError, "a SETTINGS frame ends within a setting"}
		}
		payload = payload[n+m:]
		if count == maxSettingsCount {
			return s, &ConnError{ExcessiveLoad, "a SETTINGS frame has too many settings"}
		}
		for _, before := range seen[:count] {
			if before == id {
				return s, &ConnError{SettingsError, "a setting stands twice"}
			}
		}
		seen[count] = id
		switch id {
		case 0x00, 0x02, 0x03, 0x04, 0x05: // HTTP/2's (RFC 9114 7.2.4.1, 11.2.2)
			return s, &ConnError{SettingsError, "a setting is one of HTTP/2"}
		case settingMaxFieldSection:
			s.MaxFieldSection = int64(value)
		case settingEnableConnect, settingDatagram:
			if value > 1 {
				return s, &ConnError{SettingsError, "a setting that is 0 or 1 has another value"}
			}
			s.EnableConnect = s.EnableConnect || id == settingEnableConnect && value == 1
		case settingTableCapacity, settingBlockedStreams: // the gateway inserts nothing
		}
	}
	return s, nil
}
