package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// relay carries what is sent to near to far, and returns how it ended.
func relay(t testing.TB) (near, far *net.TCPConn, in, out *Conn) {
	t.Helper()
	near, in = ends(t)
	far, out = ends(t)
	return near, far, in, out
}

// ends returns the two ends of a connection, the second wrapped.
func ends(t testing.TB) (*net.TCPConn, *Conn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := New(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{a, b} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return a, wrapped
}

func TestCarry(t *testing.T) {
	for name, size := range map[string]int{"nothing": 0, "little": 100, "a piece": 32 << 10, "much": 64 << 20} {
		t.Run(name, func(t *testing.T) {
			near, far, in, out := relay(t)
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(i>>16 ^ i>>8 ^ i)
			}
			var moved atomic.Int64
			ended := make(chan error, 1)
			go func() {
				readErr, writeErr := Carry(out, in, func(n int64) { moved.Add(n) })
				ended <- errors.Join(readErr, writeErr, out.CloseWrite())
			}()
			go func() {
				for rest := want; len(rest) > 0; { // now much, now little
					n := min(len(rest), 1<<20)
					_, _ = near.Write(rest[:n])
					rest = rest[n:]
					n = min(len(rest), 10)
					_, _ = near.Write(rest[:n])
					rest = rest[n:]
				}
				_ = near.CloseWrite()
			}()
			got, err := io.ReadAll(far)
			if err := errors.Join(err, <-ended); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) || moved.Load() != int64(size) {
				t.Errorf("got %d bytes of %d; %d were counted", len(got), size, moved.Load())
			}
		})
	}
}

// What is fed goes through memory, however much it is.
func TestFeed(t *testing.T) {
	near, in := ends(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		_, _ = near.Write(want)
		_ = near.CloseWrite()
	}()
	var got bytes.Buffer
	moved := int64(0)
	if readErr, writeErr := Feed(&got, in, func(n int64) { moved += n }); readErr != nil || writeErr != nil {
		t.Error(readErr, writeErr)
	}
	if !bytes.Equal(got.Bytes(), want) || moved != int64(len(want)) {
		t.Errorf("got %d bytes of %d; %d were counted", got.Len(), len(want), moved)
	}
	full := errors.New("full")
	other, from := ends(t)
	_, _ = other.Write([]byte("x"))
	if _, err := Feed(refusing{full}, from, func(int64) { t.Error("what was not written was counted") }); err != full {
		t.Errorf("got %v", err)
	}
}

// refusing is a writer that takes nothing.
type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// Each side's failure is told as that side's, in the middle of much and at rest.
func TestCarryFails(t *testing.T) {
	busy := func(near *net.TCPConn) {
		for piece := make([]byte, 1<<20); ; {
			if _, err := near.Write(piece); err != nil {
				return
			}
		}
	}
	for name, tc := range map[string]struct {
		busy bool
		read bool // the reading side fails
	}{"reader at rest": {false, true}, "reader busy": {true, true}, "writer busy": {true, false}} {
		t.Run(name, func(t *testing.T) {
			near, far, in, out := relay(t)
			var moved atomic.Int64
			enough := make(chan struct{})
			type result struct{ read, write error }
			ended := make(chan result, 1)
			go func() {
				var once atomic.Bool
				read, write := Carry(out, in, func(n int64) {
					if moved.Add(n) > 8<<20 && !once.Swap(true) {
						close(enough)
					}
				})
				ended <- result{read, write}
			}()
			if tc.busy {
				go busy(near)
				go func() { _, _ = io.Copy(io.Discard, far) }()
				<-enough
			}
			failing := far
			if tc.read {
				failing = near
			}
			_, _ = failing.SetLinger(0), failing.Close()
			if got := <-ended; (got.read != nil) != tc.read || (got.write != nil) == tc.read {
				t.Errorf("got read %v, write %v", got.read, got.write)
			}
		})
	}
}

// An interruption ends a Carry that waits to read, and one that waits to write.
func TestCarryInterrupted(t *testing.T) {
	t.Run("reading", func(t *testing.T) {
		_, _, in, out := relay(t)
		ended := make(chan error, 1)
		go func() {
			read, _ := Carry(out, in, func(int64) {})
			ended <- read
		}()
		in.Interrupt()
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("writing", func(t *testing.T) {
		near, _, in, out := relay(t)
		go func() {
			for piece := make([]byte, 1<<20); ; {
				if _, err := near.Write(piece); err != nil {
					return
				}
			}
		}()
		ended := make(chan error, 1)
		moving := make(chan struct{}, 1)
		go func() {
			_, write := Carry(out, in, func(int64) {
				select {
				case moving <- struct{}{}:
				default:
				}
			})
			ended <- write
			in.Close()
		}()
		<-moving
		out.Interrupt()
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// carryVariable makes the test binary a source or sink of bytes, so that the benchmark counts the relay's processor time alone.
const carryVariable = "GATEHOUSE_CARRY"

func TestMain(m *testing.M) {
	if role := os.Getenv(carryVariable); role != "" {
		pump(role)
		return
	}
	os.Exit(m.Run())
}

func pump(role string) {
	c, err := net.Dial("tcp", os.Args[len(os.Args)-1])
	if err != nil {
		os.Exit(1)
	}
	if role == "sink" {
		_, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c})
		return
	}
	n, _ := strconv.Atoi(role)
	piece := make([]byte, 256<<10)
	for ; n > 0; n -= len(piece) {
		if _, err := c.Write(piece); err != nil {
			return
		}
	}
}

// BenchmarkCarry shows the processor time of the relay: through memory, as package buffer has it, and by Carry.
func BenchmarkCarry(b *testing.B) {
	for name, carry := range map[string]func(to, from *Conn){
		"memory": func(to, from *Conn) {
			piece := make([]byte, 256<<10)
			_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, piece)
		},
		"net":   func(to, from *Conn) { _, _ = io.Copy(to.TCPConn, from.TCPConn) },
		"carry": func(to, from *Conn) { _, _ = Carry(to, from, func(int64) {}) },
	} {
		b.Run(name, func(b *testing.B) {
			const size = 1 << 30
			b.SetBytes(size)
			var spent time.Duration
			for range b.N {
				l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
				if err != nil {
					b.Fatal(err)
				}
				start := func(role string) (*exec.Cmd, *Conn) {
					cmd := exec.Command(os.Args[0], l.Addr().String())
					cmd.Env = append(os.Environ(), carryVariable+"="+role)
					if err := cmd.Start(); err != nil {
						b.Fatal(err)
					}
					c, err := l.AcceptTCP()
					if err != nil {
						b.Fatal(err)
					}
					wrapped, err := New(c, nil)
					if err != nil {
						b.Fatal(err)
					}
					return cmd, wrapped
				}
				sink, to := start("sink")
				source, from := start(strconv.Itoa(size))
				before := processorTime()
				carry(to, from)
				spent += processorTime() - before
				_, _ = to.Close(), from.Close()
				if err := errors.Join(source.Wait(), sink.Wait(), l.Close()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/GiB")
		})
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
