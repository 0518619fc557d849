package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The second bytes of the ranges 10.N.0.0/16 that clusters choose from when they are not told which to take.
const firstRange, lastRange = 88, 119

const (
	nodeInterface = "eth0"
	bridgeName    = "pods"
)

// JoinHost makes the calling process's network namespace, which must be new and empty, a node: it joins it to the host's namespace, which
// is open as host, and makes the pods' bridge. The zero range asks for one that the host does not use.
//
// The name of the host's interface ("gh88") holds the range: the kernel makes only one of a name, so two clusters that start at once never
// take the same.
func JoinHost(host *os.File, all netip.Prefix) (Ranges, error) {
	outside, err := netlink.NewHandleAt(netns.NsHandle(int(host.Fd())))
	if err != nil {
		return Ranges{}, fmt.Errorf("reach the host's network: %w", err)
	}
	defer outside.Close()
	inside, err := netns.Get()
	if err != nil {
		return Ranges{}, fmt.Errorf("open the node's network namespace: %w", err)
	}
	defer inside.Close()
	r, link, err := claim(outside, inside, all)
	if err != nil {
		return Ranges{}, err
	}
	if err := connectHost(outside, link, r); err != nil {
		return Ranges{}, fmt.Errorf("join the host's network: %w", err)
	}
	if err := connectNode(r); err != nil {
		return Ranges{}, fmt.Errorf("set up the node's network: %w", err)
	}
	return r, nil
}

// claim takes a range by making the pair of interfaces that is named after it.
func claim(outside *netlink.Handle, inside netns.NsHandle, all netip.Prefix) (Ranges, string, error) {
	candidates := []netip.Prefix{all}
	if !all.IsValid() {
		candidates = candidates[:0]
		for n := byte(firstRange); n <= lastRange; n++ {
			candidates = append(candidates, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 0, 0}), 16))
		}
	}
	var problem error
	for _, candidate := range candidates {
		r, err := Divide(candidate)
		if err != nil {
			return Ranges{}, "", err
		}
		if problem = unused(outside, candidate); problem != nil {
			continue
		}
		name := interfaceName(candidate)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		problem = outside.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nodeInterface, PeerNamespace: netlink.NsFd(inside)})
		if problem == nil {
			return r, name, nil
		}
		if !errors.Is(problem, syscall.EEXIST) {
			return Ranges{}, "", fmt.Errorf("make interface %s: %w", name, problem)
		}
		problem = fmt.Errorf("range %s belongs to another cluster: interface %s exists", candidate, name)
	}
	return Ranges{}, "", problem
}

func interfaceName(all netip.Prefix) string {
	b := all.Addr().As4()
	if b[0] == 10 {
		return fmt.Sprintf("gh%d", b[1])
	}
	return fmt.Sprintf("gh%d-%d", b[0], b[1])
}

// unused says where the host's own routes lead into the range.
func unused(outside *netlink.Handle, all netip.Prefix) error {
	routes, err := outside.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the host's routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		to, ok := netip.AddrFromSlice(route.Dst.IP.To4())
		bits, _ := route.Dst.Mask.Size()
		if ok && bits > 0 && all.Overlaps(netip.PrefixFrom(to, bits)) {
			return fmt.Errorf("range %s is in use: the host has a route to %s; name another with --range", all, route.Dst)
		}
	}
	return nil
}

func connectHost(outside *netlink.Handle, name string, r Ranges) error {
	link, err := outside.LinkByName(name)
	if err != nil {
		return err
	}
	if err := outside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(r.Host(), r.Link.Bits()))}); err != nil {
		return err
	}
	if err := outside.LinkSetUp(link); err != nil {
		return err
	}
	// The link has a route of its own; this one has the rest.
	return outside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.All), Gw: r.Node().AsSlice(), Src: r.Host().AsSlice()})
}

func connectNode(r Ranges) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	eth, err := netlink.LinkByName(nodeInterface)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(r.Node(), r.Link.Bits()))}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: r.Host().AsSlice()}); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	// Without an address of its own a bridge takes that of one of its ports and changes it as pods come and go, which they would all have
	// to learn each time.
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(r.Bridge(), r.Pods.Bits()))}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return err
	}
	// A route lets the node itself begin connections to addresses that kube-proxy then changes. Those that it does not know end here,
	// instead of going round and round between host and node.
	for _, virtual := range []netip.Prefix{r.Services, r.LoadBalancers} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: ipNet(virtual), Src: r.Node().AsSlice()}); err != nil {
			return err
		}
	}
	return nodeSettings()
}

// nodeSettings make the node a router that does not tell pods of shorter ways, which on a bridge would be past it.
func nodeSettings() error {
	for name, value := range map[string]string{
		"net.ipv4.ip_forward":               "1",
		"net.ipv4.conf.all.send_redirects":  "0",
		"net.ipv4.conf.pods.send_redirects": "0",
		"net.ipv4.conf.all.rp_filter":       "0",
		"net.ipv4.conf.pods.rp_filter":      "0",
	} {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	// Where the kernel shows bridged frames to IP's rules too, it would translate a Service's address before it routes, and so lose what a
	// pod sends to itself: a bridge sends no frame back where it came from. Without the module br_netfilter there is no such setting.
	if err := setSysctl("net.bridge.bridge-nf-call-iptables", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// LeaveHost takes the node off the host's network at once. Without it the kernel does the same some time after the node's last process ended.
func LeaveHost() error {
	eth, err := netlink.LinkByName(nodeInterface)
	if err != nil {
		return err
	}
	return netlink.LinkDel(eth)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
