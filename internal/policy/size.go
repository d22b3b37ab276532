package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Size is a number of bytes, written with a unit: 512KiB, 8MiB.
type Size uint64

// The units of a [Size].
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// sizeUnits are the units as people write them, the largest first.
func sizeUnits() []struct {
	name string
	of   Size
} {
	return []struct {
		name string
		of   Size
	}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}
}

// UnmarshalText reads a size. Longer numbers than nine digits are refused, so none
// overflows.
func (s *Size) UnmarshalText(text []byte) error {
	for _, unit := range sizeUnits() {
		digits, found := strings.CutSuffix(string(text), unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || len(digits) > 9 {
			break
		}
		*s = Size(n) * unit.of
		return nil
	}
	return fmt.Errorf("must be a size such as 512KiB or 8MiB, and not %s", yamldoc.Quoted(string(text)))
}

// String is s in the largest unit of which it is a whole number.
func (s Size) String() string {
	for _, unit := range sizeUnits() {
		if s != 0 && s%unit.of == 0 {
			return strconv.FormatUint(uint64(s/unit.of), 10) + unit.name
		}
	}
	return "0B"
}

// size is the check that a value is from low to high.
func size(path string, value, low, high Size) check {
	return must(path, value >= low && value <= high, fmt.Sprintf("must be from %s to %s", low, high))
}
