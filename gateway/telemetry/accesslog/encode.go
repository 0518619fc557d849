package accesslog

import (
	"encoding/binary"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A line is written key by key, in the order of README.md, straight into the buffer that goes to the sink:
//
//	{"time":"2026-01-02T03:04:05.000006Z","level":"INFO","msg":"access","duration_us":1500,"status":200,"flag":"-",...}
//
// Most strings need no escaping, and finding that out must not cost more than copying them. The strings that the client sent stand one
// behind the other in the batch's text, so that one look over all of them, eight bytes at a time, mostly settles it: "GET", "shop.example",
// "/cart" are seen as "GETshop.example/cart". Only when that finds something are they looked at one by one.

const (
	// none stands where there is nothing to say but a reader expects a word.
	none = "-"
	hex  = "0123456789abcdef"
)

// encoder is the writer goroutine's state from line to line.
type encoder struct {
	// second is the Unix time of the last line and stamp how it begins: lines that end together mostly began in the same second.
	second int64
	stamp  []byte
}

// append appends a record as a JSON line. text is the record's part of the batch's text.
func (e *encoder) append(dst []byte, r *record, text string) []byte {
	dst = e.appendStart(dst, r.second, r.nanos)
	if r.flow {
		return appendFlow(dst, r, text)
	}
	dst = append(dst, `","level":"INFO","msg":"access","duration_us":`...)
	dst = strconv.AppendInt(dst, r.took.Microseconds(), 10)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(r.status), 10)
	dst = appendFlag(append(dst, `,"flag":"`...), r)

	sent := texts{rest: text, lengths: &r.lengths, plain: isPlain(text)}
	dst = sent.append(append(dst, `","method":"`...), textMethod)
	dst = sent.append(append(dst, `","authority":"`...), textAuthority)
	dst = sent.append(append(dst, `","path":"`...), textPath)
	dst = append(dst, `","protocol":"`...)
	dst = append(dst, protocolName(r.proto)...)
	dst = append(dst, `","bytes_in":`...)
	dst = strconv.AppendInt(dst, r.bytesIn, 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendInt(dst, r.bytesOut, 10)

	dst = appendTarget(dst, r)
	dst = sent.append(append(dst, `","user_agent":"`...), textUserAgent)
	dst = sent.append(append(dst, `","request_id":"`...), textRequestID)
	dst = sent.append(append(dst, `","trace_id":"`...), textTraceID)
	if r.lengths[textDetail] > 0 {
		dst = sent.append(append(dst, `","detail":"`...), textDetail)
	}
	return append(dst, '"', '}', '\n')
}

// appendFlow appends the rest of a flow's line. Of the strings that a client sends it has the server name alone.
func appendFlow(dst []byte, r *record, text string) []byte {
	dst = append(dst, `","level":"INFO","msg":"stream","duration_us":`...)
	dst = strconv.AppendInt(dst, r.took.Microseconds(), 10)
	dst = appendFlag(append(dst, `,"flag":"`...), r)
	sent := texts{rest: text, lengths: &r.lengths, plain: isPlain(text)}
	dst = append(append(dst, `","protocol":"`...), protocolName(r.proto)...)
	dst = appendText(append(dst, `","listener":"`...), r.listener)
	dst = sent.append(append(dst, `","server_name":"`...), textAuthority)
	dst = append(dst, `","bytes_in":`...)
	dst = strconv.AppendInt(dst, r.bytesIn, 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendInt(dst, r.bytesOut, 10)
	dst = appendTarget(dst, r)
	dst = sent.append(append(dst, `","trace_id":"`...), textTraceID)
	if r.lengths[textDetail] > 0 {
		dst = sent.append(append(dst, `","detail":"`...), textDetail)
	}
	return append(dst, '"', '}', '\n')
}

func appendFlag(dst []byte, r *record) []byte {
	if r.flag == "" {
		return append(dst, none...)
	}
	return appendEscaped(dst, string(r.flag))
}

// appendTarget appends what matched, where the exchange went, and the two ends of the client's connection.
func appendTarget(dst []byte, r *record) []byte {
	route, rule := "", ""
	if r.route != nil {
		route, rule = r.route.Route, r.route.Rule
	}
	dst = appendText(append(dst, `,"route":"`...), route)
	dst = appendText(append(dst, `","rule":"`...), rule)
	dst = appendText(append(dst, `","cluster":"`...), r.cluster)
	dst = appendText(append(dst, `","endpoint":"`...), r.endpoint)
	dst = append(dst, `","attempts":`...)
	dst = strconv.AppendInt(dst, int64(r.attempts), 10)
	dst = appendText(append(dst, `,"bind":"`...), r.bind)
	dst = append(dst, `","client":"`...)
	if !r.client.IsValid() {
		return dst
	}
	if r.client.Addr().Zone() != "" { // a name, and not ours
		return appendText(dst, r.client.String())
	}
	return r.client.AppendTo(dst)
}

// appendStart opens the line with its time, in UTC and without the fraction's trailing zeros.
func (e *encoder) appendStart(dst []byte, second int64, nanos int32) []byte {
	if second != e.second || len(e.stamp) == 0 {
		e.second = second
		e.stamp = time.Unix(second, 0).UTC().AppendFormat(append(e.stamp[:0], `{"time":"`...), "2006-01-02T15:04:05")
	}
	dst = append(dst, e.stamp...)
	if nanos != 0 {
		fraction := [...]byte{'.', '0', '0', '0', '0', '0', '0', '0', '0', '0'}
		end := len(fraction)
		for nanos%10 == 0 {
			nanos /= 10
			end--
		}
		for i := end - 1; nanos != 0; i-- {
			fraction[i] = byte('0' + nanos%10)
			nanos /= 10
		}
		dst = append(dst, fraction[:end]...)
	}
	return append(dst, 'Z')
}

func protocolName(p exchange.Proto) string {
	if int(p) >= exchange.Protos {
		p = exchange.ProtoUnknown
	}
	return p.String()
}

// texts hands out a record's strings in the order they stand in its text.
type texts struct {
	rest    string
	lengths *[textCount]uint16
	plain   bool // none of them needs escaping
}

// append appends the next string, which is the i-th.
func (t *texts) append(dst []byte, i int) []byte {
	s := t.rest[:t.lengths[i]]
	t.rest = t.rest[len(s):]
	if t.plain {
		return append(dst, s...)
	}
	return appendEscaped(dst, s)
}

// appendText appends a string with whatever must be escaped in JSON.
func appendText(dst []byte, s string) []byte {
	if isPlain(s) {
		return append(dst, s...)
	}
	return appendEscaped(dst, s)
}

// isPlain reports whether a JSON string can hold s as it is: printable ASCII (and DEL) but for '"' and '\'. A byte of a word of eight
// does not qualify when its high bit is set, or gets set by taking away from it, which borrows from no neighbour as long as all qualify:
//
//	0x20 from the byte                below 0x20: a control character
//	0x01 from the byte xor '"'        was zero: the quote
//	0x01 from the byte xor '\'        was zero: the backslash
func isPlain(s string) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	if len(b) < 8 {
		for _, c := range b {
			if c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
				return false
			}
		}
		return true
	}
	found := uint64(0)
	for rest := b; ; rest = rest[8:] {
		if len(rest) < 8 {
			rest = b[len(b)-8:] // looks at some bytes again
		}
		w := binary.LittleEndian.Uint64(rest)
		found |= w | (w - ' '*ones) | ((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones)
		if len(rest) == 8 {
			return found&highs == 0
		}
	}
}

// appendEscaped appends a string that may need escaping: what RFC 8259 7 asks for, and U+2028 and U+2029, which end a line where JSON is
// taken for JavaScript. Bytes that are not UTF-8 become U+FFFD. HTML is left alone: a log is read, not rendered.
func appendEscaped(dst []byte, s string) []byte {
	begin := 0 // of what is copied as it is
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || size > 1) {
				i += size
				continue
			}
		}
		dst = append(dst, s[begin:i]...)
		switch r {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
		}
		i += size
		begin = i
	}
	return append(dst, s[begin:]...)
}
