package network

import (
	"errors"
	"fmt"
	"net/netip"
)

// Ranges are the parts that a cluster's addresses are divided into. Of 10.88.0.0/16 they are
//
//	10.88.0.0/17     pods; the first address is the bridge's
//	10.88.128.0/18   Services' cluster addresses
//	10.88.192.0/20   load balancers, of which 10.88.207.0/24 are given only to Services that ask for one of them
//	10.88.255.0/30   the link between host (.1) and node (.2)
type Ranges struct {
	All, Pods, Services, LoadBalancers, OnRequest, Link netip.Prefix
}

// Divide divides a /16 of IPv4 addresses.
func Divide(all netip.Prefix) (Ranges, error) {
	if !all.IsValid() || !all.Addr().Is4() || all.Bits() != 16 || all.Masked() != all {
		return Ranges{}, fmt.Errorf("range %s: a cluster needs an IPv4 range of 16 bits such as 10.88.0.0/16", all)
	}
	b := all.Addr().As4()
	part := func(third byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{b[0], b[1], third, 0}), bits)
	}
	return Ranges{
		All: all, Pods: part(0, 17), Services: part(128, 18), LoadBalancers: part(192, 20), OnRequest: part(207, 24), Link: part(255, 30),
	}, nil
}

// Bridge is the node's address on the pods' bridge: their gateway and their name server.
func (r Ranges) Bridge() netip.Addr { return r.Pods.Addr().Next() }

// Host is the host's address as the cluster sees it.
func (r Ranges) Host() netip.Addr { return r.Link.Addr().Next() }

// Node is the node's address: that of the API server and of node ports.
func (r Ranges) Node() netip.Addr { return r.Host().Next() }

// API is the cluster address of the Service kubernetes, which is the first of the Services'.
func (r Ranges) API() netip.Addr { return r.Services.Addr().Next() }

// Pool hands out the addresses of a range, each to one holder at a time. One that was given back is not handed out again before all others
// were, so that what still speaks to its last holder does not reach another. It is not safe for concurrent use.
type Pool struct {
	prefix netip.Prefix
	// reserved tells the addresses that are never handed out.
	reserved func(netip.Addr) bool
	last     netip.Addr
	taken    map[netip.Addr]bool
}

// NewPool makes a pool of the addresses of a range without its first and those that reserved tells.
func NewPool(prefix netip.Prefix, reserved func(netip.Addr) bool) *Pool {
	return &Pool{prefix: prefix, reserved: reserved, last: prefix.Addr(), taken: map[netip.Addr]bool{}}
}

// Next hands out an address.
func (p *Pool) Next() (netip.Addr, error) {
	start, a := p.last, p.last
	for {
		if a = a.Next(); !p.prefix.Contains(a) {
			a = p.prefix.Addr()
		}
		if a == start {
			return netip.Addr{}, errors.New("every address of " + p.prefix.String() + " is taken")
		}
		if a != p.prefix.Addr() && !p.taken[a] && !p.reserved(a) {
			p.last = a
			p.taken[a] = true
			return a, nil
		}
	}
}

// Take hands out the one address, if nobody has it.
func (p *Pool) Take(a netip.Addr) bool {
	if !p.prefix.Contains(a) || a == p.prefix.Addr() || p.taken[a] {
		return false
	}
	p.taken[a] = true
	return true
}

// Return takes an address back.
func (p *Pool) Return(a netip.Addr) { delete(p.taken, a) }
