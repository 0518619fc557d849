//go:build !linux

package sock

import "io"

// Carry takes what from receives to to, until from's peer ends its side: then both errors are nil. moved is told of what was written.
func Carry(to, from *Conn, moved func(n int64)) (readErr, writeErr error) {
	return Feed(to, from, moved)
}

// Feed is Carry to what is not a connection: TLS over one, say.
func Feed(to io.Writer, from *Conn, moved func(n int64)) (readErr, writeErr error) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if _, err := to.Write(piece[:n]); err != nil {
				return nil, err
			}
			moved(int64(n))
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}
