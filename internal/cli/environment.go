package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/input"
)

// variablePrefix begins every environment variable of ours.
const variablePrefix = "TS_ENVOY_"

// variableAnnotation is where a flag keeps the names of its variables.
const variableAnnotation = "tailxds_variables"

// labVariable begins like ours and is the lab's.
const labVariable = "TS_ENVOY_CONTROL_PLANE_HOST"

// environment is what [os.Environ] returns: lines of the form NAME=value.
type environment []string

func (e environment) get(name string) string {
	for _, line := range e {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value
		}
	}
	return ""
}

// unknownVariable is a variable that begins like ours and stands for no flag, as it does
// after a typo. Its value is not kept; it may be a secret.
type unknownVariable struct{ name, likely string }

func (s unknownVariable) String() string {
	text := fmt.Sprintf("the environment variable %s is no setting of tailxds and is ignored", s.name)
	if s.likely != "" {
		text += "; did you mean " + s.likely + "?"
	}
	return text
}

// unknownVariables are those that are set; root has the flags of all commands.
func (e environment) unknownVariables(root *cobra.Command) []unknownVariable {
	known := []string{labVariable}
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Annotations[variableAnnotation]...) })
	}
	slices.Sort(known)
	var all []unknownVariable
	for _, line := range slices.Sorted(slices.Values(e)) {
		name, value, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, variablePrefix) && value != "" && !slices.Contains(known, name) {
			all = append(all, unknownVariable{name, input.Nearest(name, known)})
		}
	}
	return all
}
