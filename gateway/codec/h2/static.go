package h2

import "gatehouse.dev/gatehouse/gateway/exchange"

// staticTable is RFC 7541 Appendix A, counted from 1. It is never written after start.
var staticTable = func() (table [62]exchange.Field) {
	for i, f := range [...][2]string{
		{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
		{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
		{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
		{"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
		{"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
		{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
		{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
		{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
		{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
		{"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
		{"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
		{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
		{"www-authenticate", ""},
	} {
		table[i+1] = exchange.Field{Name: f[0], Value: f[1], ID: exchange.IDOf(f[0])}
	}
	return table
}()

// The entries of the static table that the encoder names.
const (
	staticAuthority     = 1
	staticGet           = 2
	staticPost          = 3
	staticPath          = 4
	staticHTTP          = 6
	staticHTTPS         = 7
	staticStatus        = 8
	staticContentLength = 28
	staticSetCookie     = 55
	staticFirstRegular  = 15
)

// longestStatic is the length of the longest name in the table.
const longestStatic = 27

// staticNames groups the entries that are not pseudo-fields by the length of their names. It is never written after start.
var staticNames = func() (index [longestStatic + 1][]uint8) {
	for i := staticFirstRegular; i < len(staticTable); i++ {
		n := len(staticTable[i].Name)
		index[n] = append(index[n], uint8(i))
	}
	return index
}()

// staticName returns the entry that has this name, in any case, or 0.
func staticName(name string) int {
	if len(name) == 0 || len(name) > longestStatic {
		return 0
	}
	last := name[len(name)-1] | 0x20
	for _, i := range staticNames[len(name)] {
		known := staticTable[i].Name
		if known[len(known)-1] == last && equalFold(name, known) {
			return int(i)
		}
	}
	return 0
}

// equalFold compares ASCII, ignoring case; known is in lower case and as long as name.
func equalFold(name, known string) bool {
	for i := range len(known) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != known[i] {
			return false
		}
	}
	return true
}

// staticByID leads from a well-known name to its entry, 0 for none. It is never written after start.
var staticByID = func() (index [256]uint8) {
	for i := len(staticTable) - 1; i >= staticFirstRegular; i-- {
		if id := staticTable[i].ID; id != exchange.Unknown {
			index[id] = uint8(i)
		}
	}
	return index
}()
