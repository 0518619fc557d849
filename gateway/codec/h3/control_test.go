package h3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestVarint(t *testing.T) {
	for encoded, want := range map[string]uint64{ // RFC 9000 A.1
		"\xc2\x19\x7c\x5e\xff\x14\xe8\x8c": 151_288_809_941_952_652,
		"\x9d\x7f\x3e\x7d":                 494_878_333,
		"\x7b\xbd":                         15_293,
		"\x25":                             37,
		"\x40\x25":                         37,
		"\xff\xff\xff\xff\xff\xff\xff\xff": MaxVarint,
	} {
		if got, n := Varint([]byte(encoded + "rest")); got != want || n != len(encoded) {
			t.Errorf("%x is %d of %d bytes, want %d", encoded, got, n, want)
		}
		for i := range encoded {
			if _, n := Varint([]byte(encoded[:i])); n != 0 {
				t.Errorf("%x has %d bytes", encoded[:i], n)
			}
		}
	}
}

func FuzzVarint(f *testing.F) {
	for _, v := range []uint64{0, 63, 64, 1<<14 - 1, 1 << 14, 1<<30 - 1, 1 << 30, MaxVarint} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v uint64) {
		v &= MaxVarint
		b := AppendVarint([]byte("x"), v)
		if got, n := Varint(b[1:]); got != v || n != len(b)-1 || n != varintLen(v) {
			t.Errorf("%d became %x and %d of %d bytes", v, b[1:], got, n)
		}
	})
}

func settings(pairs ...uint64) string {
	var b []byte
	for _, v := range pairs {
		b = AppendVarint(b, v)
	}
	return frame(typeSettings, string(b))
}

// control reads a control stream to its end, which is an error.
func control(src io.Reader) (events []Event, err error) {
	c := Control{Source: src}
	for {
		e, err := c.Next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestControl(t *testing.T) {
	first := Event{Kind: KindSettings, Settings: Settings{MaxFieldSection: -1}}
	other := Event{Kind: KindOther}
	many := []uint64{}
	for i := range uint64(maxSettingsCount + 1) {
		many = append(many, 0x21+0x1f*i, i)
	}
	for name, tc := range map[string]struct {
		stream string
		events []Event
		code   Code
	}{
		"nothing":                     {"", nil, ClosedCriticalStream},
		"settings":                    {settings(0x06, 4096, 0x08, 1, 0x01, 0, 0x33, 0, 0x21, 7), []Event{{Kind: KindSettings, Settings: Settings{MaxFieldSection: 4096, EnableConnect: true}}}, ClosedCriticalStream},
		"grease first":                {frame(0x21, "") + settings(), nil, MissingSettings},
		"GOAWAY first":                {frame(typeGoAway, "\x00") + settings(), nil, MissingSettings},
		"DATA first":                  {data(""), nil, MissingSettings},
		"settings twice":              {settings() + settings(), []Event{first}, FrameUnexpected},
		"a setting twice":             {settings(0x21, 1, 0x21, 1), nil, SettingsError},
		"a setting of HTTP/2":         {settings(0x02, 0), nil, SettingsError},
		"extended CONNECT of 2":       {settings(0x08, 2), nil, SettingsError},
		"datagrams of 2":              {settings(0x33, 2), nil, SettingsError},
		"half a setting":              {settings(0x21), nil, FrameError},
		"too many settings":           {settings(many...), nil, ExcessiveLoad},
		"settings too long":           {frame(typeSettings, strings.Repeat("x", maxControl+1)), nil, ExcessiveLoad},
		"ends within settings":        {settings(0x06, 4096)[:3], nil, ClosedCriticalStream},
		"priority":                    {settings() + frame(typePriorityUpdate, "\x08u=1, i"), []Event{first, {Kind: KindPriority, Stream: 8, Priority: Priority{1, true}}}, ClosedCriticalStream},
		"priority without value":      {settings() + frame(typePriorityUpdate, "\x00"), []Event{first, {Kind: KindPriority, Priority: Priority{3, false}}}, ClosedCriticalStream},
		"priority of no request":      {settings() + frame(typePriorityUpdate, "\x02u=1"), []Event{first}, IDError},
		"priority of a push":          {settings() + frame(typePriorityUpdatePsh, "\x00u=1"), []Event{first}, IDError},
		"priority of nothing":         {settings() + frame(typePriorityUpdate, ""), []Event{first}, FrameError},
		"priority too long":           {settings() + frame(typePriorityUpdate, "\x00"+strings.Repeat("x", maxControl)), []Event{first}, ExcessiveLoad},
		"push IDs":                    {settings() + frame(typeMaxPushID, "\x05") + frame(typeMaxPushID, "\x05"), []Event{first, other, other}, ClosedCriticalStream},
		"push IDs fall":               {settings() + frame(typeMaxPushID, "\x05") + frame(typeMaxPushID, "\x04"), []Event{first, other}, IDError},
		"push ID and more":            {settings() + frame(typeMaxPushID, "\x05\x05"), []Event{first}, FrameError},
		"half a push ID":              {settings() + frame(typeMaxPushID, "\x40"), []Event{first}, FrameError},
		"CANCEL_PUSH":                 {settings() + frame(typeCancelPush, "\x00"), []Event{first}, IDError},
		"GOAWAY":                      {settings() + frame(typeGoAway, "\x05") + frame(typeGoAway, "\x00"), []Event{first, other, other}, ClosedCriticalStream},
		"GOAWAY rises":                {settings() + frame(typeGoAway, "\x05") + frame(typeGoAway, "\x06"), []Event{first, other}, IDError},
		"GOAWAY of nothing":           {settings() + frame(typeGoAway, ""), []Event{first}, FrameError},
		"grease":                      {settings() + frame(0x21, strings.Repeat("x", 5000)) + frame(0x40, ""), []Event{first, other, other}, ClosedCriticalStream},
		"long grease":                 {settings() + frame(0x21, strings.Repeat("x", maxUnknownControl+1)), []Event{first}, ExcessiveLoad},
		"HEADERS":                     {settings() + headers(get()...), []Event{first}, FrameUnexpected},
		"DATA":                        {settings() + data("x"), []Event{first}, FrameUnexpected},
		"PUSH_PROMISE":                {settings() + frame(typePushPromise, "\x00"), []Event{first}, FrameUnexpected},
		"HTTP/2's WINDOW_UPDATE":      {settings() + frame(0x08, "1234"), []Event{first}, FrameUnexpected},
		"ends within a frame's start": {settings() + "\x40", []Event{first}, ClosedCriticalStream},
	} {
		t.Run(name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(tc.stream), iotest.OneByteReader(strings.NewReader(tc.stream)), iotest.DataErrReader(strings.NewReader(tc.stream))} {
				events, err := control(src)
				var conn *ConnError
				if !errors.As(err, &conn) || conn.Code != tc.code {
					t.Errorf("got %v, want %v", err, tc.code)
				}
				if diff := cmp.Diff(tc.events, events); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	if _, err := control(iotest.ErrReader(errReset)); err != errReset {
		t.Errorf("the source's error became %v", err)
	}
}

func TestAppendControl(t *testing.T) {
	for _, want := range []Settings{{-1, false}, {65536, true}, {1 << 40, false}} {
		b := AppendControl(nil, want)
		if b[0] != StreamControl {
			t.Errorf("the stream has the type %d", b[0])
		}
		events, err := control(bytes.NewReader(b[1:]))
		if len(events) != 1 || events[0].Settings != want || err != ErrClosed {
			t.Errorf("%+v became %+v, %v", want, events, err)
		}
	}
	if got := AppendGoAway(nil, 400); string(got) != "\x07\x02\x41\x90" {
		t.Errorf("GOAWAY is %x", got)
	}
}

func FuzzControl(f *testing.F) {
	f.Add([]byte(settings(0x06, 4096, 0x08, 1) + frame(typePriorityUpdate, "\x08u=1, i") + frame(0x21, "x")))
	f.Add([]byte(settings() + frame(typeGoAway, "\x05") + frame(typeMaxPushID, "\x05")))
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := control(bytes.NewReader(stream))
		pieces, pieceErr := control(iotest.OneByteReader(bytes.NewReader(stream)))
		if diff := cmp.Diff(whole, pieces); diff != "" || errorName(err) != errorName(pieceErr) {
			t.Fatalf("%v, %v: %s", err, pieceErr, diff)
		}
	})
}

func TestQPACKStreams(t *testing.T) {
	if err := CheckEncoder([]byte("\x20\x20")); err != nil {
		t.Error(err)
	}
	for _, b := range []string{"\x21", "\x3f\xe1\x1f", "\xc0\x01a", "\x41a\x01b", "\x00"} {
		if err := CheckEncoder([]byte(b)); errorName(err) != "connection: QPACK_ENCODER_STREAM_ERROR" {
			t.Errorf("%x: %v", b, err)
		}
	}
	for b, want := range map[string]int{"": 0, "\x40": 1, "\x41\x7f\x80\x01\x42": 3} {
		var whole, pieces Acknowledgements
		got, err := whole.Take([]byte(b))
		sum := 0
		for i := range b {
			n, err := pieces.Take([]byte(b[i : i+1]))
			if sum += n; err != nil {
				t.Error(err)
			}
		}
		if got != want || sum != want || err != nil {
			t.Errorf("%x: %d and %d, %v, want %d", b, got, sum, err, want)
		}
	}
	for _, b := range []string{"\x80", "\x01", "\x00", "\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if _, err := new(Acknowledgements).Take([]byte(b)); errorName(err) != "connection: QPACK_DECODER_STREAM_ERROR" {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestParsePriority(t *testing.T) {
	for value, want := range map[string]Priority{
		"": {3, false}, "u=0": {0, false}, "u=7, i": {7, true}, "i": {3, true}, "u=1,i=?1": {1, true}, "i, i=?0": {3, false},
		"u=5;x=1, i;y": {5, true}, "u=8": {3, false}, "u=-1": {3, false}, "u": {3, false}, " u=2 ,\ti ": {2, true},
		`a="u=1,i,\",", u=4`: {4, false}, `a=(1 2, 3), u=6`: {6, false}, "u=1, u=2": {2, false}, "U=1": {3, false}, ",,": {3, false},
	} {
		if got := ParsePriority(value); got != want {
			t.Errorf("%q: got %+v, want %+v", value, got, want)
		}
	}
}

func TestCodeNames(t *testing.T) {
	for code, want := range map[Code]string{NoError: "H3_NO_ERROR", VersionFallback: "H3_VERSION_FALLBACK", DecompressionFailed: "QPACK_DECOMPRESSION_FAILED",
		DecoderStreamError: "QPACK_DECODER_STREAM_ERROR", 0x111: "code 0x111", 0x203: "code 0x203", 0: "code 0x0"} {
		if got := code.String(); got != want {
			t.Errorf("%#x is %s, want %s", uint64(code), got, want)
		}
	}
}
