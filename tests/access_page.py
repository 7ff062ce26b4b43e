"""The table of docs/api.md that says what each route needs, made from the access table.

python -m tests.access_page      writes it anew
"""

from frontend.access.access_table import TABLE, About, Access
from shared.tenancy.actions import ACTIONS_OF, Role
from tests.outside.paths import CHECKOUT

PAGE = CHECKOUT / "docs" / "api.md"
BEGIN, END = "<!-- access: begin -->", "<!-- access: end -->"
PLACE = "/api/v2/tenants/{tenant}/databases/{database}"


def table() -> str:
    """One row per route that needs a credential."""
    lines = ["| route | actions | least role | scope |", "| --- | --- | --- | --- |"]
    lines += [_row(method, path, access) for method, path, access in TABLE if access.about is not About.NOTHING]
    return "\n".join(lines)


def _row(method: str, path: str, access: Access) -> str:
    all_of = [f"`{action}`" for action in sorted(access.actions)]
    one_of = " or ".join(f"`{action}`" for action in sorted(access.any_of))
    actions = " and ".join([*all_of, *([one_of] if one_of else [])]) or "any valid credential"
    return f"| `{method} {path.replace(PLACE, '…')}` | {actions} | {least_role(access)} | {_scope(access)} |"


def least_role(access: Access) -> Role:
    """The first role that has all of the actions, and one at least of those of which the body says which."""
    return next(
        role
        for role, actions in ACTIONS_OF.items()
        if access.actions <= actions and not (access.any_of and access.any_of.isdisjoint(actions))
    )


def _scope(access: Access) -> str:
    words = {
        About.SELF: "",
        About.SYSTEM: "everything",
        About.OWN: "within its own",
        About.TENANT: "the tenant",
        About.DATABASE: "the database",
    }
    text = words.get(access.about, "the collection")
    if access.whole:
        text = "the whole tenant" if access.about is About.TENANT else "the whole database"
    return f"{text}; shows what is in the scope" if access.filtered else text


def written() -> str:
    """What the page has between its marks."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")


if __name__ == "__main__":
    main()
