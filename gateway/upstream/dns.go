package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"gatehouse.dev/gatehouse/gateway/config"
)

// Resolver looks up the addresses of a name and says for how long the answer may be used. Lookup returns soon after ctx ends: whoever
// gives a cluster up waits for it.
type Resolver interface {
	Lookup(ctx context.Context, host string) (addrs []netip.Addr, ttl time.Duration, err error)
}

// Bounds of re-resolution. A TTL of zero would make every moment a lookup; a long one would outlive a moved service.
const (
	minTTL     = time.Second
	maxTTL     = 5 * time.Minute
	hostsTTL   = 5 * time.Second // for answers that carry no TTL: the hosts file
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
	lookupTime = 5 * time.Second
)

// keepResolved looks a cluster's name up and again each time the TTL runs out, until ctx ends. While a lookup fails the last good
// addresses stay.
func (c *Cluster) keepResolved(ctx context.Context, name *config.DNS, o *Options) {
	backoff := retryFirst
	first := true
	for ctx.Err() == nil {
		addrs, ttl, err := lookup(ctx, o.Resolve, name)
		wait := min(max(ttl, minTTL), maxTTL)
		if err != nil {
			o.Logger.Warn("a name does not resolve; the last addresses stay in use", "cluster", c.name, "host", name.Host, "error", err, "retry", backoff)
			wait, backoff = backoff, min(2*backoff, retryMost)
		} else {
			backoff = retryFirst
			endpoints := make([]netip.AddrPort, 0, len(addrs))
			for _, a := range addrs {
				endpoints = append(endpoints, netip.AddrPortFrom(a, name.Port))
			}
			c.setEndpoints(endpoints)
		}
		if first {
			first = false
			close(c.resolved)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	if first {
		close(c.resolved)
	}
}

// lookup resolves a name and refuses addresses that no name outside may point the gateway at: link-local ones, where clouds serve
// credentials, multicast and the unspecified address; loopback too where the name is not said to be allowed to lead there.
func lookup(ctx context.Context, r Resolver, name *config.DNS) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, ttl, err := r.Lookup(ctx, name.Host)
	if err != nil {
		return nil, 0, err
	}
	usable := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		a = a.Unmap()
		if e := embedded(a); e.IsLinkLocalUnicast() || e.IsMulticast() || e.IsUnspecified() || e.IsLoopback() && !name.Loopback {
			continue
		}
		usable = append(usable, a)
	}
	if len(usable) == 0 {
		return nil, 0, fmt.Errorf("%s has no usable address (%d refused)", name.Host, len(addrs))
	}
	slices.SortFunc(usable, netip.Addr.Compare)
	return slices.Compact(usable), ttl, nil
}

// embedded returns the IPv4 address that an IPv6 one stands for where a network translates between them, and otherwise the address itself:
// NAT64 (RFC 6052 2.1), 6to4 (RFC 3056 2), Teredo (RFC 4380 4) and IPv4-compatible addresses (RFC 4291 2.5.5.1).
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	b := a.As16()
	last := [4]byte(b[12:])
	switch {
	case [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b}, [12]byte(b[:12]) == [12]byte{} && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4(last)
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	case [4]byte(b[:4]) == [4]byte{0x20, 0x01}:
		return netip.AddrFrom4([4]byte{^last[0], ^last[1], ^last[2], ^last[3]})
	}
	return a
}

// dnsResolver asks the servers of resolv.conf itself, because the standard library's resolver does not tell the TTL. The hosts file
// is looked at first, as everywhere.
type dnsResolver struct {
	hosts string // file
	// config is read anew for each lookup: the servers may change while the gateway runs.
	config func() (*dns.ClientConfig, error)
	// other is asked for names that the servers do not know.
	other func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

func systemResolver() Resolver {
	return dnsResolver{
		hosts:  "/etc/hosts",
		config: func() (*dns.ClientConfig, error) { return dns.ClientConfigFromFile("/etc/resolv.conf") },
		other:  net.DefaultResolver.LookupNetIP,
	}
}

// Lookup implements Resolver. The name is absolute: the search domains of resolv.conf could make another host of the one that an object
// names. Names that DNS servers do not know fall back on the standard library (other name services).
func (r dnsResolver) Lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, maxTTL, nil
	}
	if addrs := r.fromHosts(host); len(addrs) > 0 {
		return addrs, hostsTTL, nil
	}
	conf, err := r.config()
	if err == nil && len(conf.Servers) > 0 {
		addrs, ttl, err := r.query(ctx, conf, host)
		if err == nil && len(addrs) > 0 {
			return addrs, ttl, nil
		}
	}
	addrs, err := r.other(ctx, "ip", dns.Fqdn(host))
	return addrs, hostsTTL, err
}

func (r dnsResolver) query(ctx context.Context, conf *dns.ClientConfig, name string) (addrs []netip.Addr, ttl time.Duration, err error) {
	ttl = maxTTL
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, e := r.ask(ctx, conf, name, kind)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		for _, record := range answer {
			// Every record on the way, CNAMEs included, bounds how long the answer holds.
			ttl = min(ttl, time.Duration(record.Header().Ttl)*time.Second)
			switch rr := record.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
					addrs = append(addrs, a)
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok {
					addrs = append(addrs, a)
				}
			}
		}
	}
	if len(addrs) > 0 {
		err = nil
	}
	return addrs, ttl, err
}

func (r dnsResolver) ask(ctx context.Context, conf *dns.ClientConfig, name string, kind uint16) ([]dns.RR, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), kind)
	question.SetEdns0(1232, false)
	var failed error
	for _, server := range conf.Servers {
		address := net.JoinHostPort(server, conf.Port)
		answer, err := trade(ctx, "udp", question, address)
		if err == nil && answer.Truncated {
			answer, err = trade(ctx, "tcp", question, address)
		}
		switch {
		case err != nil:
			failed = err
		case answer.Rcode == dns.RcodeSuccess:
			return answer.Answer, nil
		default:
			failed = fmt.Errorf("%s: %s", name, dns.RcodeToString[answer.Rcode])
		}
	}
	return nil, failed
}

// trade sends a question and waits for the answer or for ctx, of which the library honours the deadline alone.
func trade(ctx context.Context, network string, question *dns.Msg, address string) (*dns.Msg, error) {
	client := &dns.Client{Net: network}
	conn, err := client.DialContext(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	answer, _, err := client.ExchangeWithConnContext(ctx, question, conn)
	return answer, err
}

func (r dnsResolver) fromHosts(host string) (addrs []netip.Addr) {
	file, err := os.Open(r.hosts)
	if err != nil {
		return nil
	}
	defer file.Close()
	host = strings.TrimSuffix(host, ".")
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) < 2 || !slices.ContainsFunc(words[1:], func(w string) bool { return strings.EqualFold(w, host) }) {
			continue
		}
		if a, err := netip.ParseAddr(words[0]); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
