package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Pods makes the pods' network namespaces. It must be used by a process that runs in the node's.
type Pods struct {
	ranges Ranges

	mu    sync.Mutex // guards what follows
	pool  *Pool
	count int // of namespaces made, which names interfaces
}

// Pod is the network of one pod.
type Pod struct {
	Address netip.Addr
	// Namespace is open as long as the pod has it.
	Namespace *os.File
	link      string
	pods      *Pods
}

// NewPods makes pods on the bridge that JoinHost made.
func NewPods(r Ranges) *Pods {
	return &Pods{ranges: r, pool: NewPool(r.Pods, func(a netip.Addr) bool { return a == r.Bridge() })}
}

// Add makes a namespace with an address and with settings ("net.ipv4.ip_unprivileged_port_start": "0").
func (p *Pods) Add(settings map[string]string) (*Pod, error) {
	p.mu.Lock()
	address, err := p.pool.Next()
	p.count++
	link := fmt.Sprintf("veth%d", p.count)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	pod := &Pod{Address: address, link: link, pods: p}
	if pod.Namespace, err = newNamespace(settings); err == nil {
		err = pod.connect()
	}
	if err != nil {
		pod.Remove()
		return nil, fmt.Errorf("pod's network: %w", err)
	}
	return pod, nil
}

// newNamespace makes a network namespace. The thread that does it is not used again, and so the namespace belongs to nobody but the
// file that is returned.
func newNamespace(settings map[string]string) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			results <- result{nil, fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		for name, value := range settings {
			if err := setSysctl(name, value); err != nil {
				results <- result{nil, err}
				return
			}
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		results <- result{file, err}
	}()
	r := <-results
	return r.file, r.err
}

// setSysctl changes a setting of the calling thread's network namespace.
func setSysctl(name, value string) error {
	if !strings.HasPrefix(name, "net.") || strings.Contains(name, "/") {
		return fmt.Errorf("sysctl %s: only those of the network (net.*) belong to a pod here", name)
	}
	if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}

func (p *Pod) connect() error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridgeName, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = p.link, bridge.Attrs().Index
	namespace := netns.NsHandle(int(p.Namespace.Fd()))
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nodeInterface, PeerNamespace: netlink.NsFd(namespace)}); err != nil {
		return fmt.Errorf("make interface %s: %w", p.link, err)
	}
	link, err := netlink.LinkByName(p.link)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return err
	}
	defer inside.Close()
	return p.configure(inside)
}

// configure gives the pod's end its address and its way out. The gateway is on no network of the pod's, so the interface is named.
func (p *Pod) configure(inside *netlink.Handle) error {
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(loopback); err != nil {
		return err
	}
	eth, err := inside.LinkByName(nodeInterface)
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(p.Address, 32))}); err != nil {
		return err
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return err
	}
	gateway := p.pods.ranges.Bridge()
	index := eth.Attrs().Index
	if err := inside.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(gateway, 32)), Scope: netlink.SCOPE_LINK}); err != nil {
		return err
	}
	return inside.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()})
}

// Remove takes the pod off the bridge and gives back its address. What still runs in the namespace is cut off.
func (p *Pod) Remove() {
	// With the interface at this end goes the one in the pod.
	link, err := netlink.LinkByName(p.link)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var gone netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &gone) {
		return // the address stays taken: it may still be in use
	}
	if p.Namespace != nil {
		p.Namespace.Close()
	}
	p.pods.mu.Lock()
	defer p.pods.mu.Unlock()
	p.pods.pool.Return(p.Address)
}

// DialLoopback connects to a TCP port of the pod's loopback address. The thread that does it is not used again.
func (p *Pod) DialLoopback(ctx context.Context, port int32) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = unix.Setns(int(p.Namespace.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		}
	}()
	<-done
	return conn, err
}
