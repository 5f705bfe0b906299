/**
 * @module cli/completion/scripts
 *
 * What each shell loads. The scripts know nothing of the commands: they hand the line to `mvm __complete` of the
 * program that is typed, so they fit whatever version of it is installed.
 */

export const SHELLS = ["bash", "zsh", "fish"] as const
export type Shell = (typeof SHELLS)[number]

const BASH = `# bash completion for mvm. Load it with: source <(mvm completion bash)
_mvm() {
  local line value cut word=\${COMP_LINE:0:COMP_POINT} files=
  local program=\${COMP_WORDS[0]}
  type -P -- "$program" >/dev/null || program=mvm
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :*) files=\${line#:} ;;
      *) COMPREPLY+=("\${line%%$'\\t'*}") ;;
    esac
  done < <("$program" __complete --line "$word" 2>/dev/null)
  # bash replaces what stands behind the last ":" or "=" only.
  word=\${word##*[[:space:]]}
  cut=
  case $word in
    *:*) [[ $COMP_WORDBREAKS == *:* ]] && cut=\${word%"\${word##*:}"} ;;
    *=*) [[ $COMP_WORDBREAKS == *=* ]] && cut=\${word%"\${word##*=}"} ;;
  esac
  [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *[:=] ]] && compopt -o nospace
  for value in "\${!COMPREPLY[@]}"; do COMPREPLY[value]=\${COMPREPLY[value]#"$cut"}; done
  if [[ $files ]]; then
    local option=-f
    [[ $files == directory ]] && option=-d
    if [[ \${#COMPREPLY[@]} -eq 0 ]]; then compopt -o filenames; fi
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen $option -- "\${word#"$cut"}")
  fi
}
complete -F _mvm mvm
`

const ZSH = `#compdef mvm
# zsh completion for mvm. Load it with: source <(mvm completion zsh), or keep it as _mvm in a folder of $fpath
_mvm() {
  local line value files program=\${(Q)words[1]}
  local -a plain open
  whence -p -- "$program" >/dev/null || program=mvm
  for line in "\${(@f)$("$program" __complete -- "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}"; do
    [[ -n $line ]] || continue
    if [[ $line == :* ]]; then
      files=\${line#:}
      continue
    fi
    value=\${line%%$'\\t'*}
    [[ $line == *$'\\t'* ]] && line="\${value//:/\\\\:}:\${line#*$'\\t'}" || line=\${value//:/\\\\:}
    if [[ $value == *[:=] ]]; then open+=("$line"); else plain+=("$line"); fi
  done
  (( \${#plain} )) && _describe -t values mvm plain
  (( \${#open} )) && _describe -t values mvm open -S ''
  if [[ -n $files ]]; then
    [[ $PREFIX == --*=* ]] && compset -P '*='
    [[ $files == directory ]] && _files -/ || _files
  fi
}
if [[ \${funcstack[1]} == _mvm ]]; then _mvm "$@"; else compdef _mvm mvm; fi
`

const FISH = `# fish completion for mvm. Load it with: mvm completion fish | source
function __mvm_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  set -l program $words[1]
  type -q -- $program; or set program mvm
  for line in ($program __complete -- $words[2..] "$current" 2>/dev/null)
    switch $line
      case ':file'
        __fish_complete_path (string replace -r '^--[a-z-]+=' '' -- "$current")
      case ':directory'
        __fish_complete_directories (string replace -r '^--[a-z-]+=' '' -- "$current")
      case '*'
        printf '%s\\n' $line
    end
  end
end
complete -c mvm -f -a '(__mvm_complete)'
`

export const SCRIPTS: Readonly<Record<Shell, string>> = { bash: BASH, zsh: ZSH, fish: FISH }
