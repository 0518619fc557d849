package upstream

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Session keeps the requests of a client's session on one backend and endpoint. The client carries a token, in a cookie or a header field,
// that says which; the gateway itself remembers nothing, so that every proxy of the Gateway knows a session that another one began.
//
//	token  = base64url( nonce sealed )
//	sealed = AES-256-GCM( since cluster address ), for the cookie's or field's name
//	since  = when the session began, 8 bytes, Unix seconds
//	cluster = 8 bytes of the SHA-256 of its name
//	address = 4 or 16 bytes and the port, as netip.AddrPort.MarshalBinary has it
//
// A client can neither make one up nor see where it leads. The nonce is a keyed hash of what is sealed, so that none ever serves two
// different contents; the same content gives the same token.
type Session struct {
	config *config.Persistence
	aead   cipher.AEAD
	nonce  []byte // key of the hash that gives nonces
}

// Place is where a session's requests go.
type Place struct {
	cluster  [8]byte
	Endpoint netip.AddrPort
	// Since is when the session began, to the second.
	Since time.Time
}

const (
	// leastSessionKey is the least length of Persistence.Key.
	leastSessionKey = 16
	// mostToken bounds what is looked at: a token of an IPv6 endpoint with a zone is shorter.
	mostToken = 256
)

// NewSession makes a session's rules out of the configuration. A key of less than 16 bytes is an error.
func NewSession(c *config.Persistence) (*Session, error) {
	if len(c.Key) < leastSessionKey {
		return nil, fmt.Errorf("session persistence %s: the key has %d bytes, at least %d are needed", c.Name, len(c.Key), leastSessionKey)
	}
	if err := checkSession(c); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derive(c.Key, "gatehouse session seal"))
	if err != nil {
		return nil, fmt.Errorf("session persistence %s: %w", c.Name, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("session persistence %s: %w", c.Name, err)
	}
	return &Session{config: c, aead: aead, nonce: derive(c.Key, "gatehouse session nonce")}, nil
}

func derive(key []byte, label string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(label))
	return h.Sum(nil)
}

// sameSession reports whether two configurations give the same Session.
func sameSession(a, b *config.Persistence) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Header == b.Header && a.Name == b.Name && a.Path == b.Path && a.Permanent == b.Permanent &&
		a.AbsoluteTimeout == b.AbsoluteTimeout && bytes.Equal(a.Key, b.Key)
}

func shortName(cluster string) [8]byte {
	sum := sha256.Sum256([]byte(cluster))
	return [8]byte(sum[:8])
}

// In reports whether the place lies in a cluster.
func (p *Place) In(cluster string) bool { return p.cluster == shortName(cluster) }

// Seal makes the token for a place.
func (s *Session) Seal(cluster string, endpoint netip.AddrPort, since time.Time) string {
	name := shortName(cluster)
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, 64), uint64(since.Unix()))
	plain = append(plain, name[:]...)
	plain, err := endpoint.AppendBinary(plain)
	if err != nil {
		return "" // netip never says so
	}
	h := hmac.New(sha256.New, s.nonce)
	h.Write([]byte(s.config.Name))
	h.Write([]byte{0})
	h.Write(plain)
	nonce := h.Sum(nil)[:s.aead.NonceSize()]
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, plain, []byte(s.config.Name)))
}

// Open reads a token. One that was made up, was made for another name or key, or has outlived the absolute timeout is none. The comparison
// that decides takes the same time wherever a token is wrong.
func (s *Session) Open(token string, now time.Time) (Place, bool) {
	if token == "" || len(token) > mostToken || strings.ContainsAny(token, "\r\n") { // which the decoder would pass over
		return Place{}, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < s.aead.NonceSize() {
		return Place{}, false
	}
	nonce := raw[:s.aead.NonceSize()]
	plain, err := s.aead.Open(nil, nonce, raw[len(nonce):], []byte(s.config.Name))
	if err != nil || len(plain) < 16 {
		return Place{}, false
	}
	p := Place{cluster: [8]byte(plain[8:16]), Since: time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)}
	if p.Endpoint.UnmarshalBinary(plain[16:]) != nil || !p.Endpoint.IsValid() {
		return Place{}, false
	}
	if most := s.config.AbsoluteTimeout; most > 0 && now.Sub(p.Since) >= most {
		return Place{}, false
	}
	return p, true
}

// Find returns the place of the first of a request's tokens that leads to one of the clusters that wanted accepts.
func (s *Session) Find(fields exchange.Fields, wanted func(*Place) bool) (Place, bool) {
	var now time.Time
	try := func(token string) (Place, bool) {
		if now.IsZero() {
			now = time.Now()
		}
		p, ok := s.Open(token, now)
		return p, ok && wanted(&p)
	}
	if s.config.Header {
		if token, ok := fields.Lookup(s.config.Name); ok {
			return try(token)
		}
		return Place{}, false
	}
	for i := range fields {
		if fields[i].ID != exchange.Cookie {
			continue
		}
		for pair := range strings.SplitSeq(fields[i].Value, ";") {
			name, value, found := strings.Cut(strings.Trim(pair, " \t"), "=")
			if !found || name != s.config.Name {
				continue
			}
			if p, ok := try(value); ok {
				return p, true
			}
		}
	}
	return Place{}, false
}

// Issue adds the token to the fields of a response. secure says that the client came by TLS.
func (s *Session) Issue(fields *exchange.Fields, token string, since time.Time, secure bool) {
	c := s.config
	if c.Header {
		fields.Set(c.Name, token)
		return
	}
	path := c.Path
	if path == "" {
		path = "/"
	}
	cookie := c.Name + "=" + token + "; Path=" + path + "; HttpOnly; SameSite=Lax"
	if secure {
		cookie += "; Secure"
	}
	if c.Permanent && c.AbsoluteTimeout > 0 {
		left := max(c.AbsoluteTimeout-time.Since(since), time.Second)
		cookie += "; Max-Age=" + strconv.FormatInt(int64(left/time.Second), 10)
	}
	fields.Add("Set-Cookie", cookie)
}

// errNoToken is what a name or path of a cookie that cannot be written is refused with.
var errNoToken = errors.New("a name of letters, digits and !#$%&'*+-.^_`|~ and a path without control characters, commas and semicolons are needed")

// checkSession holds the words that go into a cookie to their grammar (RFC 6265 4.1.1).
func checkSession(c *config.Persistence) error {
	for i := range len(c.Name) {
		if ch := c.Name[i]; ch <= ' ' || ch >= 0x7f || strings.IndexByte("()<>@,;:\\\"/[]?={}", ch) >= 0 {
			return fmt.Errorf("session persistence %q: %w", c.Name, errNoToken)
		}
	}
	for i := range len(c.Path) {
		if ch := c.Path[i]; ch < ' ' || ch >= 0x7f || ch == ';' || ch == ',' {
			return fmt.Errorf("session persistence %q, path %q: %w", c.Name, c.Path, errNoToken)
		}
	}
	if c.Name == "" {
		return fmt.Errorf("session persistence without a name: %w", errNoToken)
	}
	return nil
}
