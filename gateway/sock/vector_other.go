//go:build !linux

package sock

// Vector stands for several pieces of memory that are written as one. Here they are written one after another.
type Vector struct{}

// WriteVector writes the pieces one after another, all of them unless there is an error, and returns how many bytes were written.
func (c *Conn) WriteVector(_ *Vector, pieces [3][]byte) (int, error) {
	wrote := 0
	for _, p := range pieces {
		n, err := c.Write(p)
		wrote += n
		if err != nil {
			return wrote, err
		}
	}
	return wrote, nil
}
