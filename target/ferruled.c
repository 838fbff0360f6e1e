/* ferruled: the daemon.  main() reads the options and joins the rooms. */
int main(void)
{
	return 0;
}
