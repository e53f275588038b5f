/* SPDX-License-Identifier: Apache-2.0 */
/* `completion': functions for shells, which ask `moat complete' (complete.c). */
#include <string.h>

#include "core/args.h"
#include "core/cmd.h"
#include "core/terminal.h"

const char *const completion_shells[] = {"bash", "zsh", "fish", NULL};

/* bash breaks words at '=' and ':', and puts in only what follows there; `read' does not. */
static const char bash_text[] =
	"# bash completion of moat: eval \"$(moat completion bash)\", or put this into\n"
	"# ~/.local/share/bash-completion/completions/moat\n"
	"_moat() {\n"
	"	local line=${COMP_LINE:0:COMP_POINT} word _ current kept\n"
	"	local -a words\n"
	"	read -ra words <<<\"$line\"\n"
	"	[[ $line == *[[:space:]] ]] && words+=('')\n"
	"	current=${words[${#words[@]}-1]}\n"
	"	kept=${current%\"${current##*[=:]}\"}\n"
	"	COMPREPLY=()\n"
	"	while IFS=$'\\t' read -r word _; do\n"
	"		case $word in\n"
	"		:files | :directories)\n"
	"			compopt -o filenames 2>/dev/null\n"
	"			while IFS= read -r word; do\n"
	"				COMPREPLY+=(\"$word\")\n"
	"			done < <(compgen \"${word/:*s/-${word:1:1}}\" -- "
	"\"${current#\"$kept\"}\")\n"
	"			;;\n"
	"		*=) compopt -o nospace 2>/dev/null; COMPREPLY+=(\"${word#\"$kept\"}\") ;;\n"
	"		*) COMPREPLY+=(\"${word#\"$kept\"}\") ;;\n"
	"		esac\n"
	"	done < <(command \"${words[0]}\" complete -- \"${words[@]:1}\" 2>/dev/null)\n"
	"}\n"
	"complete -F _moat moat\n";

static const char zsh_text[] =
	"#compdef moat\n"
	"# zsh completion of moat: put this into a file _moat in a directory of $fpath, or\n"
	"# eval \"$(moat completion zsh)\" after compinit\n"
	"_moat() {\n"
	"	local line\n"
	"	local -a words_before described options\n"
	"	words_before=(\"${(@)words[2,CURRENT]}\")\n"
	"	while IFS= read -r line; do\n"
	"		case $line in\n"
	"		:files) compset -P 1 '--*='; _files ;;\n"
	"		:directories) compset -P 1 '--*='; _files -/ ;;\n"
	"		*=$'\\t'*) options+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
	"		*$'\\t'*) described+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") "
	";;\n"
	"		*) described+=(\"${line//:/\\\\:}\") ;;\n"
	"		esac\n"
	"	done < <(command \"${words[1]}\" complete -- \"${words_before[@]}\" 2>/dev/null)\n"
	"	(( $#described )) && _describe -o moat described\n"
	"	(( $#options )) && _describe -o moat options -S ''\n"
	"	return 0\n"
	"}\n"
	"if [[ ${funcstack[1]-} == _moat ]]; then _moat \"$@\"; else compdef _moat moat; fi\n";

static const char fish_text[] =
	"# fish completion of moat: moat completion fish | source, or put this into\n"
	"# ~/.config/fish/completions/moat.fish\n"
	"function __moat_complete\n"
	"	set -l words (commandline -opc)\n"
	"	set -l token (commandline -ct)\n"
	"	command $words[1] complete -- $words[2..-1] \"$token\" 2>/dev/null | while read -l "
	"line\n"
	"		switch $line\n"
	"			case ':files'\n"
	"				__fish_complete_path (string unescape -- \"$token\")\n"
	"			case ':directories'\n"
	"				__fish_complete_directories (string unescape -- "
	"\"$token\") ''\n"
	"			case '*'\n"
	"				echo $line\n"
	"		end\n"
	"	end\n"
	"end\n"
	"complete -c moat -f -k -a '(__moat_complete)'\n";

int
cmd_completion(struct app *app, const struct args *args, struct moat_error *err)
{
	static const char *const texts[] = {bash_text, zsh_text, fish_text};
	const char *shell = args_at(args, 0);

	(void) app;
	for (size_t i = 0; completion_shells[i] != NULL; i++)
		if (strcmp(shell, completion_shells[i]) == 0) {
			out("%s", texts[i]);
			return 0;
		}
	return moat_fail(err, MOAT_USAGE,
			 "there is no completion for `%s'; there is for bash, zsh and fish", shell);
}
